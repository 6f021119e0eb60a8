// Swin blocks whose windows and tokens the device counts, on a GPU. Skipped where there is none.
#include <utility>

#include "counted_swin_fixture.h"
#include "cuda_fixture.h"
#include "spoilt_memory.h"

namespace fathom::cuda_gated_swin_test {
namespace {

using namespace counted_swin_fixture;
using testing::spoil_memory;

class CudaGatedSwinBlock : public cuda_test::CudaKernels {
 protected:
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
}  // namespace fathom::cuda_gated_swin_test
