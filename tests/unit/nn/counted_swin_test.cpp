// Swin blocks whose windows and tokens the device counts: by the references of their operations, and on a
// GPU.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "formula_weights.h"
#include "gradcheck.h"
#include "lent_once.h"
#include "nn/swin_block.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"

namespace fathom::counted_swin_test {
namespace {

using testing::formula_uniform;
using testing::formula_weight;
using testing::LentOnce;
using testing::relative_error;

/// The gates of a block that is layer 5: of its windows, of its feed-forward layer's tokens.
constexpr int64_t kLayer = 5, kPlaces = (1 << 24) + kLayer, kBatch = 3;

struct Shape {
  int64_t side, window, dim, heads;
  int64_t windows() const { return side / window * (side / window); }
  int64_t places() const { return side * side; }
};

SwinBlock block_of(const Shape& shape, GateKind kind, double drop_path = 0, bool qkv_bias = true) {
  SwinBlock block(SwinBlockOptions{.dim = shape.dim,
                                   .heads = shape.heads,
                                   .window = shape.window,
                                   .shifted = shape.side > shape.window,
                                   .qkv_bias = qkv_bias,
                                   .drop_path = drop_path,
                                   .layer = kLayer,
                                   .gate = {.kind = kind, .density = 0.4},
                                   .map_places = shape.places()});
  const torch::NoGradGuard no_grad;
  for (auto& item : block->named_parameters()) {
    item.value().copy_(formula_weight(item.key(), item.value().sizes()));
    if (item.key().ends_with("scorer.out")) item.value().mul_(30);
    if (item.key().ends_with("pooled.up.weight")) item.value().mul_(20);
    if (item.key().ends_with("pooled.up.bias")) item.value().sub_(2);
  }
  for (NamedGate each : gates_of(*block)) each.gate->set_multiplier(at::full({}, 0.5, at::kDouble));
  return block;
}

at::Tensor map_of(const Shape& shape) {
  return formula_uniform("map", kBatch * shape.places() * shape.dim)
      .view({kBatch, shape.side, shape.side, shape.dim})
      .mul(3);
}

/// Decisions of all sorts: about half, the same but none of one picture, none, all.
std::vector<GateTrace> decisions_of_all_sorts(const Shape& shape) {
  const auto some = [&](const char* name, int64_t count) {
    return formula_uniform(name, kBatch * count).view({kBatch, count}).gt(0);
  };
  const auto windows = some("windows", shape.windows()), tokens = some("tokens", shape.places());
  auto uneven_windows = windows.clone(), uneven_tokens = tokens.clone();
  uneven_windows[1].fill_(false);
  uneven_tokens[0].fill_(false);
  const auto trace = [](const at::Tensor& of_windows, const at::Tensor& of_tokens) {
    return GateTrace{{{kLayer, of_windows}, {kPlaces, of_tokens}}};
  };
  return {trace(windows, tokens), trace(uneven_windows, uneven_tokens),
          trace(at::zeros_like(windows), at::zeros_like(tokens)),
          trace(at::ones_like(windows), at::ones_like(tokens))};
}

/// What a training step makes of a block.
struct Learned {
  at::Tensor y;
  GateTrace trace;
  std::map<std::string, at::Tensor> counts, gradients;  ///< of gates; of parameters and, as "x", of the map
};

at::Tensor slope_of(const at::Tensor& x) {
  return formula_uniform("slope", x.numel()).view(x.sizes()).to(x.options());
}

Learned learned(SwinBlock block, const at::Tensor& map, const at::Tensor& slope, ForwardContext context,
                bool counted) {
  Learned found;
  context.gate_trace = &found.trace;
  for (NamedGate each : gates_of(*block)) each.gate->reset_counts();
  const auto x = map.detach().requires_grad_(true);
  std::vector<at::Tensor> leaves = block->parameters();
  leaves.push_back(x);
  found.y = counted ? block->counted(x, context) : block->forward(x, context);
  const auto grads = torch::autograd::grad({(found.y * slope).sum()}, leaves, {}, {}, false, true);
  std::vector<std::string> names = block->named_parameters().keys();
  names.emplace_back("x");
  for (size_t i = 0; i < names.size(); ++i)
    found.gradients[names[i]] = grads[i].defined() ? grads[i] : at::zeros_like(leaves[i]);
  for (NamedGate each : gates_of(*block)) found.counts[each.name] = each.gate->counts().clone();
  return found;
}

ForwardContext training(double explore, const GateTrace* forced) {
  return {.training = true,
          .key_B = at::arange(kBatch) * 71,
          .explore = explore,
          .sample_share = 0.25,
          .forced_gates = forced};
}

void expect_alike(const Learned& got, const Learned& expected, double tolerance, const std::string& what) {
  EXPECT_LT(relative_error(got.y, expected.y), tolerance) << what;
  for (const auto& [name, gradient] : expected.gradients)
    EXPECT_LT(relative_error(got.gradients.at(name), gradient), tolerance) << name << ", " << what;
  for (const auto& [name, counts] : expected.counts)
    EXPECT_TRUE(at::allclose(got.counts.at(name), counts, 1e-9)) << name << ", " << what;
  for (const auto& [layer, active] : expected.trace.active_BT)
    EXPECT_TRUE(at::equal(got.trace.active_BT.at(layer), active)) << layer << ", " << what;
}

TEST(CountedSwinBlock, LearnsAsOneWhoseRowsTheHostCounts) {
  for (const Shape& shape : {Shape{6, 3, 8, 2}, Shape{3, 3, 8, 2}}) {
    const auto x = map_of(shape), slope = slope_of(x);
    const std::vector<GateTrace> sorts = decisions_of_all_sorts(shape);
    for (const GateKind kind : {GateKind::kToken, GateKind::kPooled, GateKind::kRandom})
      for (const double explore : {0.0, 0.4})
        for (const double drop : {0.0, 0.3})
          for (size_t sort = 0; sort <= sorts.size(); ++sort) {
            SwinBlock block = block_of(shape, kind, drop, /*qkv_bias=*/sort != 1);
            block->to(at::kDouble);
            const ForwardContext context = training(explore, sort < sorts.size() ? &sorts[sort] : nullptr);
            expect_alike(learned(block, x, slope, context, /*counted=*/true),
                         learned(block, x, slope, context, /*counted=*/false), 1e-12,
                         fmt::format("{}, explored {}, dropped {}, sort {}", gate_kind_name(kind), explore,
                                     drop, sort));
          }
  }
}

/// Weights of products where they are to lie, all others as without rooms.
void expect_rooms(SwinBlock block, const at::Tensor& x, const at::Tensor& slope, ForwardContext context,
                  SideStream* side, double tolerance, bool counted) {
  const Learned expected = learned(block, x, slope, context, counted);
  LentOnce rooms(side);
  context.rooms = &rooms;
  const Learned got = learned(block, x, slope, context, counted);
  if (side != nullptr) side->join();
  EXPECT_EQ(rooms.count(), 6u);  // of four products and two scorers' projections
  for (const auto& [name, gradient] : expected.gradients)
    EXPECT_LE(relative_error(got.gradients.at(name).cpu(), gradient.cpu()), tolerance) << name;
  for (const char* name :
       {"attention.qkv.weight", "attention.output.weight", "mlp.up.weight", "mlp.down.weight"})
    EXPECT_EQ(got.gradients.at(name).data_ptr(), rooms.place_of(block->named_parameters()[name])) << name;
}

TEST(CountedSwinBlock, WritesGradientsOfWeightsWhereTheyAreToLie) {
  const Shape shape = {6, 3, 8, 2};
  const auto x = map_of(shape).to(at::kFloat);
  expect_rooms(block_of(shape, GateKind::kToken), x, slope_of(x), training(0.4, nullptr), nullptr, 0,
               /*counted=*/true);
}

/// What others hold of the gradient that came stays as it is.
TEST(CountedSwinBlock, LeavesAGradientThatOthersHold) {
  const Shape shape = {6, 3, 8, 2};
  SwinBlock block = block_of(shape, GateKind::kToken);
  block->to(at::kDouble);
  const auto x = map_of(shape).requires_grad_(true);
  const auto y = block->counted(x, training(0, nullptr));
  const auto above = slope_of(y), before = above.clone();
  const auto first = torch::autograd::grad({y}, {x}, {above}, /*retain_graph=*/true)[0];
  EXPECT_TRUE(at::equal(above, before));
  EXPECT_TRUE(at::equal(torch::autograd::grad({y}, {x}, {above})[0], first));
}

/// What is frozen has no gradient, and changes nothing for the rest.
TEST(CountedSwinBlock, LearnsBesideFrozenParameters) {
  const Shape shape = {6, 3, 8, 2};
  SwinBlock block = block_of(shape, GateKind::kToken);
  block->to(at::kDouble);
  const auto x = map_of(shape), slope = slope_of(x);
  const ForwardContext context = training(0.4, nullptr);
  const Learned all = learned(block, x, slope, context, /*counted=*/true);
  for (const char* name :
       {"attention.qkv.weight", "mlp.down.bias", "mlp_norm.weight", "attention.position_bias"})
    block->named_parameters()[name].requires_grad_(false);
  const auto leaf = x.clone().requires_grad_(true);
  std::vector<at::Tensor> leaves = {leaf};
  std::vector<std::string> names = {"x"};
  for (const auto& item : block->named_parameters())
    if (item.value().requires_grad()) {
      leaves.push_back(item.value());
      names.push_back(item.key());
    }
  const auto grads = torch::autograd::grad({(block->counted(leaf, context) * slope).sum()}, leaves);
  for (size_t i = 0; i < names.size(); ++i)
    EXPECT_LT(relative_error(grads[i], all.gradients.at(names[i])), 1e-12) << names[i];
}

TEST(CountedSwinBlock, ComputesAsWithGradientsAndWaitsForNothing) {
  const Shape shape = {6, 3, 8, 2};
  const auto x = map_of(shape);
  SwinBlock block = block_of(shape, GateKind::kToken);
  block->to(at::kDouble);
  bool waited = false;
  const ForwardContext context{.waited = &waited};
  const auto expected = block->counted(x, context).detach();
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(block->counted(x, context), expected));
  EXPECT_FALSE(waited);
  block->forward(x, context);
  EXPECT_TRUE(waited);
}

/// Memory that is taken without being set holds what is no number.
void spoil_memory(at::Device device) {
  std::vector<at::Tensor> spoilt;
  for (const int64_t count : {1 << 10, 1 << 16, 1 << 23})
    for (int64_t i = 0; i < 64; ++i)
      spoilt.push_back(at::full({count}, NAN, at::TensorOptions().dtype(at::kFloat).device(device)));
}

class CudaGatedSwinBlock : public ::testing::Test {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
    device_ = select_device("cuda:0");
    runtime_ = make_device_runtime(device_);
    ASSERT_EQ(runtime_->missing_kernels(), "");
  }

  GateTrace there(const GateTrace& trace) const {
    GateTrace moved;
    for (const auto& [layer, active] : trace.active_BT) moved.active_BT[layer] = active.to(device_);
    return moved;
  }
  /// On this device, with the values of 16 bits.
  SwinBlock moved(SwinBlock block, at::ScalarType type) const {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : block->parameters()) parameter.copy_(parameter.to(type));
    block->to(device_);
    for (NamedGate each : gates_of(*block))
      each.gate->set_multiplier(at::full({}, 0.5, at::kDouble).to(device_));
    return block;
  }

  at::Device device_ = at::kCPU;
  std::unique_ptr<DeviceRuntime> runtime_;
};

TEST_F(CudaGatedSwinBlock, LearnsAsByTheReferences) {
  for (const Shape& shape : {Shape{14, 7, 64, 2}, Shape{8, 4, 96, 3}, Shape{5, 5, 64, 2}})
    for (const auto type : {at::kBFloat16, at::kHalf})
      for (const GateTrace& forced : decisions_of_all_sorts(shape))
        for (const double drop : {0.0, 0.3}) {
          SwinBlock block = moved(block_of(shape, GateKind::kToken, drop), type);
          SwinBlock expected_block = block_of(shape, GateKind::kToken, drop);
          {
            const torch::NoGradGuard no_grad;
            for (auto& parameter : expected_block->parameters()) parameter.copy_(parameter.to(type));
          }
          const auto x = map_of(shape).to(type);
          const GateTrace forced_there = there(forced);
          bool waited = false;
          spoil_memory(device_);
          ForwardContext context = training(0.3, &forced_there);
          context.key_B = context.key_B.to(device_);
          context.waited = &waited;
          Learned got = learned(block, x.to(device_), slope_of(x).to(device_), context, /*counted=*/false);
          EXPECT_FALSE(waited);
          const Learned expected = learned(expected_block, x.to(at::kFloat), slope_of(x.to(at::kFloat)),
                                           training(0.3, &forced), /*counted=*/true);
          const double tolerance = type == at::kHalf ? 2e-2 : 8e-2;
          EXPECT_LT(relative_error(got.y.cpu(), expected.y), tolerance);
          for (const auto& [name, gradient] : expected.gradients) {
            // What tokens give to a gate's one bias nearly cancels out: judged by that of `out`.
            const std::string bias = ".scorer.bias";
            const bool cancels = name.ends_with(bias);
            const auto& measure =
                cancels ? expected.gradients.at(name.substr(0, name.size() - bias.size()) + ".scorer.out")
                        : gradient;
            const double scale = measure.abs().max().item<double>() + 1e-30;
            const double error = (got.gradients.at(name).cpu().to(at::kDouble) - gradient.to(at::kDouble))
                                     .abs()
                                     .max()
                                     .item<double>();
            EXPECT_LT(error / scale, tolerance)
                << name << ", " << c10::toString(type) << ", side " << shape.side << ", dropped " << drop;
          }
        }
}

/// By their own scores, whose gradients reach every parameter.
TEST_F(CudaGatedSwinBlock, DecidesByItself) {
  const Shape shape = {14, 7, 64, 2};
  for (const GateKind kind : {GateKind::kToken, GateKind::kPooled, GateKind::kRandom}) {
    SwinBlock block = moved(block_of(shape, kind, 0.2), at::kBFloat16);
    const auto x = map_of(shape).to(device_, at::kBFloat16), slope = slope_of(x);
    bool waited = false;
    ForwardContext context = training(0.3, nullptr);
    context.key_B = context.key_B.to(device_);
    context.waited = &waited;
    spoil_memory(device_);
    const Learned found = learned(block, x, slope, context, /*counted=*/false);
    EXPECT_FALSE(waited) << gate_kind_name(kind);
    EXPECT_TRUE(found.y.isfinite().all().item<bool>());
    for (const auto& [name, gradient] : found.gradients) {
      EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << name << ", " << gate_kind_name(kind);
      if (kind == GateKind::kToken) {
        EXPECT_GT(gradient.abs().max().item<double>(), 0) << name;
      }
    }
    if (kind != GateKind::kToken) continue;
    for (const auto& [layer, active] : found.trace.active_BT) {
      const auto share = active.to(at::kFloat).mean().item<double>();
      EXPECT_GT(share, 0.01) << layer;
      EXPECT_LT(share, 0.99) << layer;
    }
  }
}

TEST_F(CudaGatedSwinBlock, GradientsMadeBesideAreThoseMadeInTurn) {
  const Shape shape = {14, 7, 64, 2};
  SwinBlock block = moved(block_of(shape, GateKind::kToken, 0.2), at::kBFloat16);
  block->to(at::kFloat);
  const auto x = map_of(shape).to(device_, at::kBFloat16), slope = slope_of(x);
  const GateTrace forced = there(decisions_of_all_sorts(shape).front());
  ForwardContext context = training(0.3, &forced);
  context.key_B = context.key_B.to(device_);
  SideStream side(device_);
  for (int i = 0; i < 3; ++i) {
    spoil_memory(device_);
    expect_rooms(block, x, slope, context, &side, 1e-2, /*counted=*/false);
  }
}

/// Adapters and maps that windows do not divide have no kernels; dropout of elements has none in training.
TEST_F(CudaGatedSwinBlock, WaitsWhereThereAreNoKernels) {
  const auto waits = [&](const SwinBlockOptions& options, int64_t side, const ForwardContext& asked) {
    SwinBlock block(options);
    const torch::NoGradGuard no_grad;
    for (auto& item : block->named_parameters())
      item.value().copy_(formula_weight(item.key(), item.value().sizes()));
    block->to(device_, at::kBFloat16);
    bool waited = false;
    ForwardContext context = asked;
    context.waited = &waited;
    block->forward(at::randn({kBatch, side, side, 64}).to(device_, at::kBFloat16), context);
    return waited;
  };
  SwinBlockOptions options = {
      .dim = 64, .heads = 2, .window = 7, .gate = {.kind = GateKind::kToken}, .map_places = 196};
  EXPECT_FALSE(waits(options, 14, {}));
  EXPECT_TRUE(waits(options, 16, {}));
  options.dropout = 0.2;
  EXPECT_FALSE(waits(options, 14, {}));
  EXPECT_TRUE(waits(options, 14, {.training = true, .key_B = at::arange(kBatch).to(device_)}));
  options.dropout = 0;
  options.mlp_ratio = 3.3;  // 211 wide
  EXPECT_TRUE(waits(options, 14, {}));
}

/// What waits for the device cannot be recorded.
TEST_F(CudaGatedSwinBlock, ARecordedStepFollowsTheDecisions) {
  const Shape shape = {14, 7, 64, 2};
  SwinBlock block = moved(block_of(shape, GateKind::kToken, 0.2), at::kBFloat16);
  const auto x = map_of(shape).to(device_, at::kBFloat16), slope = slope_of(x);
  GateTrace forced = there(decisions_of_all_sorts(shape).front());
  ForwardContext context = training(0.3, &forced);
  context.key_B = context.key_B.to(device_);
  for (int i = 0; i < 3; ++i) learned(block, x, slope, context, /*counted=*/false);
  Learned recorded;
  const auto graph = runtime_->make_graph(nullptr);
  graph->capture([&] { recorded = learned(block, x, slope, context, /*counted=*/false); });
  for (const double density : {0.1, 0.7}) {
    for (auto& [layer, active] : forced.active_BT) active.copy_(at::rand(active.sizes()).lt(density));
    graph->replay();
    const Learned expected = learned(block, x, slope, context, /*counted=*/false);
    EXPECT_LT(relative_error(recorded.y.cpu(), expected.y.cpu()), 1e-2);
    for (const auto& [name, gradient] : expected.gradients)
      EXPECT_LT(relative_error(recorded.gradients.at(name).cpu(), gradient.cpu()), 1e-2)
          << name << " at " << density;
  }
}

}  // namespace
}  // namespace fathom::counted_swin_test
