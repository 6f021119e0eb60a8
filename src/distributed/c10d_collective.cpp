// Collectives over LibTorch's c10d. The one file of libfathom that sees its headers.
#include <ATen/ops/empty.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "distributed/collective.h"
#include "distributed/failure_watch.h"
#include "distributed/key_value_store.h"
#include "tensor/cuda_plugin.h"

namespace fathom {
namespace {

using StorePointer = c10::intrusive_ptr<c10d::Store>;
using BackendPointer = c10::intrusive_ptr<c10d::Backend>;
using WorkPointer = c10::intrusive_ptr<c10d::Work>;

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

/// The first line of a message, without LibTorch's stack trace.
std::string first_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

/// What goes wrong is thrown without LibTorch's stack trace.
class C10dStore final : public KeyValueStore {
 public:
  explicit C10dStore(StorePointer store) : store_(std::move(store)) {}
  void set(const std::string& key, const std::string& value) override {
    ask([&] { store_->set(key, value); });
  }
  std::string set_once(const std::string& key, const std::string& value) override {
    return ask([&] { return store_->compareSet(key, std::string(), value); });
  }
  int64_t add(const std::string& key, int64_t delta) override {
    return ask([&] { return store_->add(key, delta); });
  }
  std::optional<std::string> find(const std::string& key) override {
    return ask([&]() -> std::optional<std::string> {
      if (!store_->check({key})) return std::nullopt;
      return store_->get_to_str(key);
    });
  }

 private:
  template <typename Request>
  static std::invoke_result_t<Request> ask(Request request) {
    try {
      return request();
    } catch (const std::exception& error) {
      throw std::runtime_error(first_line(error));
    }
  }

  StorePointer store_;
};

/// LibTorch would print a stack trace for every lost connection; the failure watch says it in one line.
void silence_torch_warnings() {
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = c10::GLOG_ERROR;
}

/// A peer that is gone closes its sockets: writing to one is to be an error, and not the end of this process.
void ignore_closed_sockets() {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  if (before != SIG_DFL) std::signal(SIGPIPE, before);  // the application's own
}

StorePointer connect_store(const RankEnvironment& environment, const CollectiveConfig& config) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(environment.master_port);
  options.isServer = environment.rank == 0 && !environment.store_is_running;
  options.numWorkers = environment.size;
  options.waitWorkers = false;
  options.timeout = milliseconds(config.join_seconds);
  if (options.isServer && environment.store_fd >= 0) options.masterListenFd = environment.store_fd;
  try {
    return c10::make_intrusive<c10d::PrefixStore>(
        "fathom/" + environment.attempt,
        c10::make_intrusive<c10d::TCPStore>(environment.master_host, options));
  } catch (const std::exception& error) {
    fail(ErrorKind::kPeer, "rank {}: no rendezvous at {}:{} ({})", environment.rank, environment.master_host,
         environment.master_port, first_line(error));
  }
}

/// Returns once every rank has come.
void await_ranks(c10d::Store& store, const RankEnvironment& environment, const CollectiveConfig& config) {
  const auto deadline = FailureWatch::Clock::now() + milliseconds(config.join_seconds);
  int64_t joined = store.add("joined", 1);
  while (joined < environment.size) {
    if (FailureWatch::Clock::now() > deadline) {
      fail(ErrorKind::kPeer, "rank {}: only {} of {} ranks came to {}:{} within {:g} s", environment.rank,
           joined, environment.size, environment.master_host, environment.master_port, config.join_seconds);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    joined = store.add("joined", 0);
  }
}

BackendPointer make_gloo(const StorePointer& store, const RankEnvironment& environment,
                         const CollectiveConfig& config) {
  using Gloo = c10d::ProcessGroupGloo;
  auto options = Gloo::Options::create(milliseconds(config.timeout_seconds));
  if (const char* interface = std::getenv("GLOO_SOCKET_IFNAME")) {
    options->devices.push_back(Gloo::createDeviceForInterface(interface));
  } else if (environment.on_one_machine()) {
    options->devices.push_back(Gloo::createDeviceForHostname("127.0.0.1"));
  } else {
    options->devices.push_back(Gloo::createDefaultDevice());
  }
  return c10::make_intrusive<Gloo>(store, environment.rank, environment.size, options);
}

BackendPointer make_backend(const StorePointer& store, const RankEnvironment& environment, at::Device device,
                            const CollectiveConfig& config) {
  if (device.is_cpu()) return make_gloo(store, environment, config);
  const CudaPluginSearch& search = find_cuda_plugin();
  if (!device.is_cuda() || !search.plugin) {
    fail(ErrorKind::kConfig, "no collective for device {}: {}", device.str(), search.reason);
  }
  return search.plugin->make_nccl(store, environment.rank, environment.size, device,
                                  milliseconds(config.timeout_seconds));
}

c10d::ReduceOp to_c10d(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
    case ReduceOp::kMean:
      return c10d::ReduceOp::SUM;
    case ReduceOp::kMax:
      return c10d::ReduceOp::MAX;
    case ReduceOp::kMin:
      return c10d::ReduceOp::MIN;
  }
  fail(ErrorKind::kInternal, "[collective] unknown reduction");
}

/// The process group, shared with the thread that aborts it when the group fails.
struct BackendSlot {
  std::mutex mutex;
  BackendPointer backend;

  BackendPointer get() {
    std::lock_guard lock(mutex);
    return backend;
  }
  void set(BackendPointer value) {
    std::lock_guard lock(mutex);
    backend = std::move(value);
  }
};

class C10dCollective final : public Collective {
 public:
  C10dCollective(const RankEnvironment& environment, at::Device device, const CollectiveConfig& config)
      : rank_(environment.rank),
        size_(environment.size),
        device_(device),
        store_(connect_store(environment, config)) {
    await_ranks(*store_, environment, config);
    watch_ = std::make_unique<FailureWatch>(
        std::make_unique<C10dStore>(store_->clone()), FailureWatch::Member{rank_, size_}, config,
        FailureWatch::Actions{.unblock =
                                  [slot = slot_] {
                                    if (auto backend = slot->get()) backend->abort();
                                  },
                              .end =
                                  [rank = rank_](const std::string& reason) {
                                    log::error("{} (rank {} could not leave by itself)", reason, rank);
                                    std::_Exit(exit_status(ErrorKind::kPeer));
                                  }});
    guard("joining the group", [&] { slot_->set(make_backend(store_, environment, device, config)); });
  }

  ~C10dCollective() override {
    // The group goes before the watch: peers that still wait for this rank then fail at once instead of
    // waiting.
    const BackendPointer backend = slot_->get();
    if (backend && !watch_->has_failed()) backend->shutdown();
    slot_->set(nullptr);
  }

  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }

  void all_reduce(at::Tensor tensor, ReduceOp op) override {
    all_reduce_async(std::move(tensor), op)->wait();
  }
  std::unique_ptr<PendingOperation> all_reduce_async(at::Tensor tensor, ReduceOp op) override;
  at::Tensor all_gather(const at::Tensor& tensor) override;
  at::Tensor reduce_scatter(const at::Tensor& tensor) override;
  void broadcast(at::Tensor tensor, int64_t root) override;
  void barrier() override;
  void check() override { watch_->check(); }
  void abort(const std::string& reason) override { watch_->report(reason); }

 private:
  class Pending;

  /// Runs a step of an operation; a failure in it becomes an error that names the rank at fault.
  template <typename Step>
  std::invoke_result_t<Step> guard(const char* what, Step step) {
    watch_->check();
    try {
      return step();
    } catch (const std::exception& error) {
      watch_->explain(fmt::format("{}: {}", what, first_line(error)));
    }
  }

  void require_here(const at::Tensor& tensor, const char* what) const {
    FATHOM_CHECK(tensor.device() == device_, "[{}] expected a tensor on {}, got {}", what, device_.str(),
                 tensor.device().str());
  }

  void wait_for(c10d::Work& work, const char* what);

  const int64_t rank_;
  const int64_t size_;
  const at::Device device_;
  const std::shared_ptr<BackendSlot> slot_ = std::make_shared<BackendSlot>();
  const StorePointer store_;  // outlives the watch, which may serve it to others
  std::unique_ptr<FailureWatch> watch_;
};

class C10dCollective::Pending final : public PendingOperation {
 public:
  Pending(C10dCollective& owner, WorkPointer work, at::Tensor mean_of)
      : owner_(owner), work_(std::move(work)), mean_of_(std::move(mean_of)) {}
  void wait() override {
    owner_.wait_for(*work_, "all_reduce");
    if (mean_of_.defined()) mean_of_.div_(owner_.size_);
  }

 private:
  C10dCollective& owner_;
  WorkPointer work_;
  at::Tensor mean_of_;
};

void C10dCollective::wait_for(c10d::Work& work, const char* what) {
  guard(what, [&] {
    if (device_.is_cuda()) return static_cast<void>(work.wait());  // the stream waits, not the host
    // In slices, so that a rank that fails elsewhere ends this wait too.
    while (!work.isCompleted()) {
      try {
        work.wait(std::chrono::milliseconds(200));
        return;
      } catch (const std::exception&) {
        if (!work.isCompleted()) watch_->check();
      }
    }
    if (work.exception()) std::rethrow_exception(work.exception());
  });
}

std::unique_ptr<PendingOperation> C10dCollective::all_reduce_async(at::Tensor tensor, ReduceOp op) {
  require_here(tensor, "all_reduce");
  FATHOM_CHECK(tensor.is_contiguous(), "[all_reduce] expected a contiguous tensor");
  c10d::AllreduceOptions options;
  options.reduceOp = to_c10d(op);
  std::vector<at::Tensor> tensors{tensor};
  auto work = guard("all_reduce", [&] { return slot_->get()->allreduce(tensors, options); });
  return std::make_unique<Pending>(*this, std::move(work), op == ReduceOp::kMean ? tensor : at::Tensor());
}

at::Tensor C10dCollective::all_gather(const at::Tensor& tensor) {
  require_here(tensor, "all_gather");
  at::Tensor input = tensor.dim() == 0 ? tensor.reshape({1}) : tensor.contiguous();
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] *= size_;
  at::Tensor output = at::empty(sizes, input.options());
  auto work = guard("all_gather", [&] { return slot_->get()->_allgather_base(output, input); });
  wait_for(*work, "all_gather");
  return output;
}

at::Tensor C10dCollective::reduce_scatter(const at::Tensor& tensor) {
  require_here(tensor, "reduce_scatter");
  FATHOM_CHECK(tensor.dim() > 0 && tensor.size(0) % size_ == 0,
               "[reduce_scatter] expected a first dimension divisible by {} ranks, got {}", size_,
               tensor.dim() > 0 ? tensor.size(0) : 1);
  const int64_t rows = tensor.size(0) / size_;
  if (device_.is_cpu()) {  // Gloo does the same inside, but in a way that cannot be waited for in slices
    at::Tensor sum = tensor.clone(at::MemoryFormat::Contiguous);
    all_reduce(sum, ReduceOp::kSum);
    return sum.narrow(0, rank_ * rows, rows).clone();
  }
  at::Tensor input = tensor.contiguous();
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes[0] = rows;
  at::Tensor output = at::empty(sizes, input.options());
  auto work = guard("reduce_scatter", [&] { return slot_->get()->_reduce_scatter_base(output, input); });
  wait_for(*work, "reduce_scatter");
  return output;
}

void C10dCollective::broadcast(at::Tensor tensor, int64_t root) {
  require_here(tensor, "broadcast");
  FATHOM_CHECK(root >= 0 && root < size_, "[broadcast] expected a root below {}, got {}", size_, root);
  FATHOM_CHECK(tensor.is_contiguous(), "[broadcast] expected a contiguous tensor");
  c10d::BroadcastOptions options;
  options.rootRank = root;
  std::vector<at::Tensor> tensors{tensor};
  auto work = guard("broadcast", [&] { return slot_->get()->broadcast(tensors, options); });
  wait_for(*work, "broadcast");
}

void C10dCollective::barrier() {
  c10d::BarrierOptions options;
  if (device_.is_cuda()) options.device = device_;
  auto work = guard("barrier", [&] { return slot_->get()->barrier(options); });
  wait_for(*work, "barrier");
}

}  // namespace

std::unique_ptr<Collective> make_collective(const RankEnvironment& environment, at::Device device,
                                            const CollectiveConfig& config) {
  if (environment.size == 1) return make_solo_collective();
  silence_torch_warnings();
  ignore_closed_sockets();
  return std::make_unique<C10dCollective>(environment, device, config);
}

}  // namespace fathom
