#include "batch/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"

namespace fathom {
namespace {

constexpr int64_t kSamplesPerTask = 4;
constexpr int64_t kMaxReplacements = 100;
constexpr int64_t kMaxWarnings = 20;
constexpr uint64_t kReplacementStream = 0x7e;

}  // namespace

/// The consumer draws up the list of pending batches; workers take runs of samples from the oldest that has
/// any left. `mutex_` guards the queue and the counters of what is in it; slots are written without it.
class Loader::Pipeline {
 public:
  explicit Pipeline(LoaderSetup setup);
  ~Pipeline();

  std::optional<Batch> next();
  void resume(SamplerState state);
  SamplerState state() const { return delivered_; }
  double wait_seconds() const { return wait_seconds_; }
  const Sampler& sampler() const { return sampler_; }
  int64_t num_replaced() {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(problems_.size());
  }

 private:
  /// One batch on its way: the slots are filled by workers in any order.
  struct Pending {
    Pending(std::span<const int64_t> batch_indices, SamplerState batch_state)
        : indices(batch_indices.begin(), batch_indices.end()),
          state(batch_state),
          samples(indices.size()),
          errors(indices.size()) {}

    int64_t size() const { return static_cast<int64_t>(indices.size()); }

    const std::vector<int64_t> indices;
    const SamplerState state;
    std::vector<Sample> samples;
    std::vector<std::exception_ptr> errors;  ///< one a slot, so that the first by order is thrown
    int64_t num_taken = 0;
    int64_t num_done = 0;
    Batch batch;
    bool ready = false;
  };

  void fill();
  void work(std::stop_token stop);
  std::shared_ptr<Pending> oldest_with_work() const;
  void load_run(Pending& pending, int64_t begin, int64_t end);
  Sample load_or_replace(int64_t index, int64_t epoch);
  [[noreturn]] void stop_at(const Error& error) const;
  void count_problem(int64_t index, const Error& error);
  void finish(Pending& pending);

  const LoaderSetup setup_;
  Sampler sampler_;
  SamplerState drawn_;      ///< the next batch to put into the queue
  SamplerState delivered_;  ///< the next batch to deliver
  double wait_seconds_ = 0;

  std::mutex mutex_;
  std::condition_variable_any has_work_;
  std::condition_variable is_ready_;
  std::deque<std::shared_ptr<Pending>> queue_;
  std::set<int64_t> problems_;  ///< samples whose problem was counted
  std::vector<std::jthread> workers_;
};

Loader::Pipeline::Pipeline(LoaderSetup setup)
    : setup_(std::move(setup)), sampler_(setup_.source->size(), setup_.sampler, setup_.order) {
  FATHOM_CHECK(setup_.rank >= 0 && setup_.rank < setup_.num_ranks,
               "[loader] expected a rank below {}, got {}", setup_.num_ranks, setup_.rank);
  const int64_t wanted = setup_.loader.workers;
  try {
    for (int64_t i = 0; i < wanted; ++i)
      workers_.emplace_back([this](std::stop_token stop) { work(std::move(stop)); });
  } catch (const std::system_error& error) {
    fail(ErrorKind::kConfig, "loader.workers: cannot start {} threads: {}", wanted, error.code().message());
  }
}

Loader::Pipeline::~Pipeline() {
  for (std::jthread& worker : workers_) worker.request_stop();
}

void Loader::Pipeline::fill() {
  const auto room = [&] {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(queue_.size()) < setup_.loader.prefetch;
  };
  while ((setup_.num_epochs == 0 || drawn_.epoch < setup_.num_epochs) && room()) {
    auto pending = std::make_shared<Pending>(sampler_.slice(drawn_, setup_.rank, setup_.num_ranks), drawn_);
    pending->ready = pending->size() == 0;
    drawn_ = sampler_.next(drawn_);
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(pending));
    has_work_.notify_all();
  }
}

std::optional<Batch> Loader::Pipeline::next() {
  fill();
  std::unique_lock lock(mutex_);
  if (queue_.empty()) return std::nullopt;
  const std::shared_ptr<Pending> front = queue_.front();
  const auto start = std::chrono::steady_clock::now();
  if (workers_.empty() && !front->ready) {
    lock.unlock();
    load_run(*front, 0, front->size());
    finish(*front);
    lock.lock();
  }
  is_ready_.wait(lock, [&] { return front->ready; });
  wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const std::exception_ptr& error : front->errors)
    if (error) std::rethrow_exception(error);
  queue_.pop_front();
  lock.unlock();
  delivered_ = sampler_.next(front->state);
  fill();
  return std::move(front->batch);
}

void Loader::Pipeline::resume(SamplerState state) {
  if (state.epoch < 0 || state.position < 0 || state.position >= sampler_.batches_per_epoch())
    fail(ErrorKind::kCheckpoint, "cannot resume at batch {} of epoch {}: an epoch has {} batches",
         state.position, state.epoch, sampler_.batches_per_epoch());
  const std::lock_guard lock(mutex_);
  queue_.clear();
  drawn_ = delivered_ = state;
}

auto Loader::Pipeline::oldest_with_work() const -> std::shared_ptr<Pending> {
  for (const auto& pending : queue_)
    if (pending->num_taken < pending->size()) return pending;
  return nullptr;
}

void Loader::Pipeline::work(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (true) {
    std::shared_ptr<Pending> pending;
    if (!has_work_.wait(lock, stop, [&] { return (pending = oldest_with_work()) != nullptr; })) return;
    const int64_t begin = pending->num_taken;
    const int64_t end = std::min(begin + kSamplesPerTask, pending->size());
    pending->num_taken = end;
    lock.unlock();
    load_run(*pending, begin, end);
    lock.lock();
    pending->num_done += end - begin;
    if (pending->num_done < pending->size()) continue;
    lock.unlock();
    finish(*pending);
    lock.lock();
  }
}

void Loader::Pipeline::load_run(Pending& pending, int64_t begin, int64_t end) {
  for (int64_t slot = begin; slot < end; ++slot) {
    const auto i = static_cast<size_t>(slot);
    try {
      pending.samples[i] = load_or_replace(pending.indices[i], pending.state.epoch);
    } catch (...) {
      pending.errors[i] = std::current_exception();
    }
  }
}

Sample Loader::Pipeline::load_or_replace(int64_t index, int64_t epoch) {
  int64_t candidate = index;
  for (int64_t attempt = 1;; ++attempt) {
    try {
      return setup_.source->load(candidate, epoch);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kData || attempt > kMaxReplacements) throw;
      if (setup_.loader.on_error == OnError::kStop) stop_at(error);
      count_problem(candidate, error);
    }
    const auto key = mix_seed({static_cast<uint64_t>(setup_.sampler.seed), static_cast<uint64_t>(epoch),
                               static_cast<uint64_t>(index), static_cast<uint64_t>(attempt)});
    Random random(key, kReplacementStream);
    candidate = setup_.source->replacement(index, epoch, random);
  }
}

void Loader::Pipeline::stop_at(const Error& error) const {
  const std::string& table = setup_.loader.table;
  if (table.empty()) throw error;
  fail(ErrorKind::kData, "{} ({}.on_error = \"skip\" puts another sample in its place)", error.what(), table);
}

void Loader::Pipeline::count_problem(int64_t index, const Error& error) {
  DataReport* report = setup_.source->report();
  const std::lock_guard lock(mutex_);
  if (!problems_.insert(index).second) return;
  if (report) report->add("", error.what());
  const auto count = static_cast<int64_t>(problems_.size());
  if (count <= kMaxWarnings) log::warning("left out: {}", error.what());
  if (count == kMaxWarnings) log::warning("further samples that cannot be read are counted only");
}

void Loader::Pipeline::finish(Pending& pending) {
  const bool failed =
      std::any_of(pending.errors.begin(), pending.errors.end(), [](const auto& error) { return !!error; });
  try {
    if (!failed) pending.batch = collate(pending.samples, setup_.collate);
  } catch (...) {
    pending.errors[0] = std::current_exception();
  }
  pending.samples.clear();
  const std::lock_guard lock(mutex_);
  pending.ready = true;
  is_ready_.notify_all();
}

void LoaderConfig::fields(Fields& f) {
  f("workers", workers, "threads that load and decode; 0 loads on the training thread",
    {.low = 0, .high = 1024});
  f("prefetch", prefetch, "batches that are loaded ahead", {.low = 1, .high = 1024});
  f.choice(
      "on_error", on_error,
      "a sample that turns out broken when it is loaded: stop there, or put another in its place and count "
      "it (rows that cannot be read: data.train.on_error)",
      {{"stop", OnError::kStop}, {"skip", OnError::kSkip}});
}

Loader::Loader(LoaderSetup setup) : pipeline_(std::make_unique<Pipeline>(std::move(setup))) {}
Loader::~Loader() = default;

std::optional<Batch> Loader::next() {
  return pipeline_->next();
}
SamplerState Loader::state() const {
  return pipeline_->state();
}
void Loader::resume(SamplerState state) {
  pipeline_->resume(state);
}
int64_t Loader::batches_per_epoch() const {
  return pipeline_->sampler().batches_per_epoch();
}
int64_t Loader::num_samples() const {
  return pipeline_->sampler().num_samples();
}
int64_t Loader::num_replaced() const {
  return pipeline_->num_replaced();
}
double Loader::wait_seconds() const {
  return pipeline_->wait_seconds();
}

LoaderSetup one_pass(std::shared_ptr<const SampleSource> source, int64_t batch_size, int64_t workers) {
  LoaderSetup setup;
  setup.source = std::move(source);
  setup.sampler = {.batch_size = batch_size, .shuffle = false, .drop_last = false};
  setup.loader.workers = workers;
  setup.num_epochs = 1;
  return setup;
}

}  // namespace fathom
