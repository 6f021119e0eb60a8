#include "distributed/data_parallel.h"

#include <ATen/ops/_foreach_copy.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

at::ScalarType gradient_dtype(const at::Tensor& parameter, GradientType type) {
  const bool is_half = parameter.scalar_type() == at::kHalf || parameter.scalar_type() == at::kBFloat16;
  return is_half && type == GradientType::kFloat32 ? at::kFloat : parameter.scalar_type();
}

constexpr int64_t kLearnEverySteps = 100;
/// Gradients of at most so many elements are brought to their places together, where nobody waits for one.
constexpr int64_t kSmallGradient = 1 << 16;

/// Copies that are made by one launch.
struct CopiesTogether {
  std::vector<at::Tensor> to, from;

  void run() const {
    const at::NoGradGuard no_grad;
    if (!to.empty()) at::_foreach_copy_(to, from);
  }
};

/// Elements of a bucket that a gradient has: whole vectors of 16 bytes, so that the next begins where kernels
/// read and products write at full speed.
int64_t room_of(const at::Tensor& value, const at::TensorOptions& options) {
  const auto width = static_cast<int64_t>(16 / options.dtype().itemsize());
  return (value.numel() + width - 1) / width * width;
}

}  // namespace

/// Parameters whose gradients lie one after another in a flat tensor, zeros between them.
struct GradientBucket {
  at::Tensor flat;
  std::vector<size_t> members;
  int64_t num_awaited = 0;  ///< members whose gradient is not complete yet in this backward
  std::unique_ptr<PendingOperation> exchange;
};

struct ReducedParameter {
  std::string name;
  at::Tensor value;
  at::Tensor gradient;  ///< view into its bucket
  size_t bucket = 0;
  int64_t num_expected = 0;  ///< contributions per backward, as counted in earlier steps; 0 while unknown
  int64_t num_received = 0;
  bool is_lent = false;          ///< its place in the bucket, since `zero`
  bool is_lent_forward = false;  ///< to a forward pass, whose backward pass hands it on
  /// What is added when that has come back.
  std::vector<std::function<void(const at::Tensor&)>> awaiting;

  /// Whether contributions have the bucket's type: otherwise they are added to zeros there, in that type.
  bool keeps_type() const { return value.scalar_type() == gradient.scalar_type(); }
  /// Whether what was lent may still be under way: it is a forward pass's, and the gradient lies elsewhere.
  bool is_awaited() const {
    const at::Tensor& found = value.grad();
    return is_lent_forward && !(found.defined() && found.const_data_ptr() == gradient.const_data_ptr());
  }
};

void DataParallelConfig::fields(Fields& f) {
  f("bucket_mb", bucket_mb, "gradients are exchanged in pieces of this size, in MB",
    {.low = 0.001, .high = 4096});
  f.choice("gradient_type", gradient_type, "type in which gradients are accumulated and exchanged",
           {{"float32", GradientType::kFloat32}, {"parameter", GradientType::kParameter}});
  f("side_stream", side_stream,
    "on a GPU, in a group of one, gradients of gated blocks' weights are made beside those that the backward "
    "pass waits for");
}

// A parameter used by several checkpointed blocks receives its gradient in several contributions, so
// "complete" cannot be read off a single one. Now and then a step counts them, and the ranks agree on the
// highest count; the steps after it expect that number. Buckets with parameters that received nothing are
// sent at the end, so that they hold nobody up and still are right when those parameters come into use. What
// lies in which bucket never changes: re-ordering by what was observed would change the order of sums between
// a run and its resumption.
struct GradientReducer::State {
  Collective& collective;
  DataParallelConfig config;
  std::vector<ReducedParameter> parameters;
  std::unordered_map<const at::TensorImpl*, size_t> places;  ///< of parameters in `parameters`
  std::vector<GradientBucket> buckets;
  std::vector<at::Tensor> flat;
  std::vector<size_t> order;  ///< in which buckets are sent: the same on every rank
  size_t num_prompt = 0;      ///< buckets at the head of `order` that may leave during backward
  bool armed = false;
  size_t num_sent = 0;
  int64_t num_steps = 0;
  int64_t num_overlapped = 0;
  std::optional<SideStream> side;
  int64_t latest_pass = -1;  ///< that asked for a place: a backward one's number

  explicit State(Collective& group, const DataParallelConfig& settings)
      : collective(group), config(settings) {}

  void make_buckets();
  void bind(ReducedParameter& parameter, CopiesTogether* later = nullptr);
  void join_former_passes(int64_t pass);
  void add(const at::Tensor& gradient, const std::function<void(const at::Tensor&)>& add);
  void add_awaiting(ReducedParameter& parameter);
  void receive(size_t index);
  void send_complete_buckets();
  void send_next();
  bool was_sent(size_t bucket) const {
    return std::find(order.begin(), order.begin() + static_cast<int64_t>(num_sent), bucket) !=
           order.begin() + static_cast<int64_t>(num_sent);
  }
  void learn_contributions();
};

namespace {

class NotifyReducer final : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit NotifyReducer(std::function<void()> notify) : notify_(std::move(notify)) {}
  void operator()(const torch::autograd::Variable&) override { notify_(); }

 private:
  std::function<void()> notify_;
};

void require_equal_layout(Collective& collective, const GradientReducer::NamedParameters& parameters) {
  int64_t num_elements = 0;
  for (const auto& [name, value] : parameters) num_elements += value.numel();
  const at::Device device = parameters.empty() ? at::Device(at::kCPU) : parameters.front().second.device();
  at::Tensor low = at::tensor({static_cast<int64_t>(parameters.size()), num_elements}, at::kLong).to(device);
  at::Tensor high = low.clone();
  collective.all_reduce(low, ReduceOp::kMin);
  collective.all_reduce(high, ReduceOp::kMax);
  FATHOM_CHECK(at::equal(low, high),
               "[data_parallel] ranks hold different models: rank {} has {} parameters, {} elements",
               collective.rank(), parameters.size(), num_elements);
}

void broadcast_values(Collective& collective, const GradientReducer::NamedParameters& parameters) {
  if (collective.size() == 1) return;
  require_equal_layout(collective, parameters);
  at::NoGradGuard no_grad;
  for (const auto& [name, value] : parameters) {
    at::Tensor buffer = value.detach().contiguous();
    collective.broadcast(buffer);
    if (value.is_contiguous())
      value.unsafeGetTensorImpl()->bump_version();  // the collective writes memory, and no tensor hears of it
    else
      value.detach().copy_(buffer);
  }
}

}  // namespace

GradientReducer::GradientReducer(Collective& collective, NamedParameters parameters,
                                 const DataParallelConfig& config)
    : state_(std::make_unique<State>(collective, config)) {
  broadcast_values(collective, parameters);
  for (auto& [name, value] : parameters) {
    if (value.requires_grad()) state_->parameters.push_back({.name = name, .value = value});
  }
  state_->make_buckets();
  const bool on_gpu = !state_->flat.empty() && !state_->flat.front().device().is_cpu();
  if (config.side_stream && on_gpu && collective.size() == 1)
    state_->side.emplace(state_->flat.front().device());
  zero();
  for (size_t i = 0; i < state_->parameters.size(); ++i) {
    state_->places.emplace(state_->parameters[i].value.unsafeGetTensorImpl(), i);
    torch::autograd::impl::set_post_acc_grad_hooks(
        state_->parameters[i].value,
        std::make_unique<NotifyReducer>([state = state_.get(), i] { state->receive(i); }));
  }
}

GradientReducer::~GradientReducer() {
  for (const ReducedParameter& parameter : state_->parameters) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter.value, nullptr);
  }
}

void GradientReducer::State::make_buckets() {
  const auto limit_bytes = static_cast<int64_t>(config.bucket_mb * 1e6);
  std::vector<int64_t> num_elements;
  for (size_t i = parameters.size(); i-- > 0;) {  // backward completes the last layers first
    const at::Tensor& value = parameters[i].value;
    const at::TensorOptions options = value.options().dtype(gradient_dtype(value, config.gradient_type));
    const int64_t room = room_of(value, options);
    const int64_t size_bytes = room * static_cast<int64_t>(options.dtype().itemsize());
    const auto fits = [&](const GradientBucket& bucket) {
      const int64_t filled_bytes = num_elements.back() * static_cast<int64_t>(options.dtype().itemsize());
      return bucket.flat.dtype() == options.dtype() && bucket.flat.device() == value.device() &&
             filled_bytes + size_bytes <= limit_bytes;
    };
    if (buckets.empty() || !fits(buckets.back())) {
      buckets.push_back({.flat = at::empty({0}, options.requires_grad(false))});
      num_elements.push_back(0);
    }
    buckets.back().members.push_back(i);
    num_elements.back() += room;
  }
  for (size_t b = 0; b < buckets.size(); ++b) {
    order.push_back(b);
    GradientBucket& bucket = buckets[b];
    bucket.flat = at::zeros({num_elements[b]}, bucket.flat.options());
    flat.push_back(bucket.flat);
    int64_t offset = 0;
    for (const size_t i : bucket.members) {
      ReducedParameter& parameter = parameters[i];
      parameter.bucket = b;
      parameter.gradient =
          bucket.flat.narrow(0, offset, parameter.value.numel()).view(parameter.value.sizes());
      offset += room_of(parameter.value, bucket.flat.options());
    }
  }
}

void GradientReducer::zero() {
  if (state_->side) state_->side->join();  // what a step left that came to no end
  for (ReducedParameter& parameter : state_->parameters) {
    parameter.value.mutable_grad() = parameter.keeps_type() ? at::Tensor() : parameter.gradient.zero_();
    parameter.num_received = 0;
    parameter.is_lent = parameter.is_lent_forward = false;
    parameter.awaiting.clear();
  }
  state_->armed = false;
  state_->num_sent = 0;
}

at::Tensor GradientReducer::take(const at::Tensor& parameter) {
  const auto found = state_->places.find(parameter.unsafeGetTensorImpl());
  if (found == state_->places.end()) return {};
  ReducedParameter& owner = state_->parameters[found->second];
  const int64_t pass = torch::autograd::get_current_graph_task_id();  // -1: a forward one
  state_->join_former_passes(pass);
  if (owner.value.grad().defined()) return {};
  if (owner.is_lent) {
    if (state_->side) state_->side->join();  // what lies there is about to be added to
    return {};
  }
  owner.is_lent = true;
  owner.is_lent_forward = pass == -1;
  // A tensor of its own, so that autograd finds nobody else holding it and keeps it as the gradient.
  return owner.gradient.view(owner.gradient.sizes());
}

/// Autograd adds to what former passes have made beside, whoever contributes in this one.
void GradientReducer::State::join_former_passes(int64_t pass) {
  if (side && pass != latest_pass) side->join();
  latest_pass = pass;
}

bool GradientReducer::add(const at::Tensor& parameter, std::function<void(const at::Tensor& gradient)> add) {
  const auto found = state_->places.find(parameter.unsafeGetTensorImpl());
  if (found == state_->places.end()) return false;
  ReducedParameter& owner = state_->parameters[found->second];
  const at::Tensor gradient = owner.value.grad();
  if (!gradient.defined()) {
    if (owner.is_lent) owner.awaiting.push_back(std::move(add));
    return owner.is_lent;
  }
  // A group's ranks count what comes through autograd in a step's last pass.
  if (state_->armed && state_->collective.size() > 1) return false;
  state_->add(gradient, add);
  return true;
}

void GradientReducer::State::add(const at::Tensor& gradient,
                                 const std::function<void(const at::Tensor&)>& add) {
  if (side) side->join();
  const at::NoGradGuard no_grad;
  add(gradient);
}

void GradientReducer::State::add_awaiting(ReducedParameter& parameter) {
  for (const auto& one : std::exchange(parameter.awaiting, {})) add(parameter.gradient, one);
}

SideStream* GradientReducer::side() {
  return state_->side ? &*state_->side : nullptr;
}

/// Brings what the parameter has for a gradient to its place in the bucket, with `later` when that runs;
/// nothing is zeros.
void GradientReducer::State::bind(ReducedParameter& parameter, CopiesTogether* later) {
  const at::Tensor found = parameter.value.grad();
  if (!found.is_same(parameter.gradient)) {
    const bool lies_there = found.defined() && found.const_data_ptr() == parameter.gradient.const_data_ptr();
    FATHOM_CHECK(lies_there || !was_sent(parameter.bucket),
                 "[data_parallel] the gradient of '{}' has left its bucket after that was sent",
                 parameter.name);
    const at::NoGradGuard no_grad;
    if (!lies_there && later == nullptr && side) side->join();
    if (!found.defined())
      parameter.gradient.zero_();
    else if (!lies_there && later != nullptr)
      later->to.push_back(parameter.gradient), later->from.push_back(found);
    else if (!lies_there)
      parameter.gradient.copy_(found);
    parameter.value.mutable_grad() = parameter.gradient;
  }
}

void GradientReducer::expect_last_backward() {
  for (GradientBucket& bucket : state_->buckets)
    bucket.num_awaited = static_cast<int64_t>(bucket.members.size());
  for (ReducedParameter& parameter : state_->parameters) parameter.num_received = 0;
  state_->num_sent = 0;
  state_->armed = true;
}

void GradientReducer::State::receive(size_t index) {
  ReducedParameter& parameter = parameters[index];
  if (collective.size() == 1 && parameter.value.numel() <= kSmallGradient) return;  // until `finish`
  if (parameter.is_awaited()) return;  // to come back with numbers that `bind` would write over
  bind(parameter);
  add_awaiting(parameter);
  if (!armed || collective.size() == 1) return;
  ++parameter.num_received;
  if (parameter.num_expected == 0) return;
  FATHOM_CHECK(parameter.num_received <= parameter.num_expected || !was_sent(parameter.bucket),
               "[data_parallel] '{}' received contribution {} to its gradient after its bucket was sent "
               "(earlier steps "
               "gave {}): the model uses it more often than before",
               parameter.name, parameter.num_received, parameter.num_expected);
  if (parameter.num_received == parameter.num_expected) {
    --buckets[parameter.bucket].num_awaited;
    send_complete_buckets();
  }
}

void GradientReducer::State::send_complete_buckets() {
  while (num_sent < num_prompt && buckets[order[num_sent]].num_awaited == 0) send_next();
}

void GradientReducer::State::send_next() {
  GradientBucket& bucket = buckets[order[num_sent]];
  bucket.exchange = collective.all_reduce_async(bucket.flat);
  ++num_sent;
}

void GradientReducer::State::learn_contributions() {
  if (parameters.empty()) return;
  std::vector<int64_t> counts;
  for (const ReducedParameter& parameter : parameters)
    counts.push_back(std::max(parameter.num_received, parameter.num_expected));
  at::Tensor agreed = at::tensor(counts, at::kLong).to(buckets.front().flat.device());
  collective.all_reduce(agreed, ReduceOp::kMax);
  agreed = agreed.cpu();
  for (size_t i = 0; i < parameters.size(); ++i)
    parameters[i].num_expected = agreed.const_data_ptr<int64_t>()[i];
  const auto is_prompt = [&](size_t bucket) {
    return std::all_of(buckets[bucket].members.begin(), buckets[bucket].members.end(),
                       [&](size_t i) { return parameters[i].num_expected > 0; });
  };
  const auto late = std::stable_partition(order.begin(), order.end(), is_prompt);
  num_prompt = static_cast<size_t>(late - order.begin());
}

void GradientReducer::finish() {
  State& state = *state_;
  FATHOM_CHECK(state.armed, "[data_parallel] finish() without expect_last_backward()");
  state.armed = false;
  if (state.side) state.side->join();
  CopiesTogether copies;
  for (ReducedParameter& parameter : state.parameters) state.bind(parameter, &copies);
  copies.run();
  for (ReducedParameter& parameter : state.parameters) state.add_awaiting(parameter);
  if (state.collective.size() == 1) return;
  state.num_overlapped = static_cast<int64_t>(state.num_sent);
  while (state.num_sent < state.buckets.size()) state.send_next();
  for (GradientBucket& bucket : state.buckets) {
    bucket.exchange->wait();
    bucket.exchange.reset();
  }
  if (state.num_steps++ % kLearnEverySteps == 0) state.learn_contributions();
}

const std::vector<at::Tensor>& GradientReducer::buckets() const {
  return state_->flat;
}

int64_t GradientReducer::num_overlapped_buckets() const {
  return state_->num_overlapped;
}

}  // namespace fathom
