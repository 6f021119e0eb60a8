#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace fathom {

int64_t num_hardware_threads() {
  return std::max<int64_t>(1, std::thread::hardware_concurrency());
}

void parallel_for_each(int64_t count, int64_t num_threads, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  int64_t failed_index = count;
  const auto run = [&] {
    for (int64_t i = next++; i < count; i = next++) {
      try {
        body(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < failed_index) {
          failed_index = i;
          failure = std::current_exception();
        }
        next = count;  // no new indices; those under way finish
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (int64_t i = 1; i < std::min(num_threads, count); ++i) helpers.emplace_back(run);
    run();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace fathom
