// A fixed set of threads that run tasks in the order given.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

namespace fathom {

/// Owns its threads; the destructor finishes the tasks already given. `submit` is safe from any thread.
class ThreadPool {
 public:
  explicit ThreadPool(int64_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// The future carries the task's exception, if it throws.
  std::future<void> submit(std::function<void()> task);
  int64_t size() const { return static_cast<int64_t>(threads_.size()); }

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable has_work_;
  std::queue<std::packaged_task<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

/// Hardware threads of this machine, at least 1.
int64_t num_hardware_threads();

/// Calls `body(i)` for i in [0, count) on `num_threads` threads and waits; rethrows the first exception by
/// index. Indices are handed out one at a time, so uneven work balances.
void parallel_for_each(int64_t count, int64_t num_threads, const std::function<void(int64_t)>& body);

}  // namespace fathom
