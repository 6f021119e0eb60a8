// Decoding in one launch against the layers one by one. Skipped without a GPU.
#include <torch/torch.h>

#include "gradcheck.h"
#include "nn/decode_step.h"
#include "nn/init.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"

namespace fathom::decode_step_test {
namespace {

using testing::relative_error;

constexpr int64_t kLayers = 6, kDim = 192, kCapacity = 700;

struct Shape {
  int64_t batch, heads, kv_heads, head_size, prompt;
  int64_t inner = 320;
};

class CudaDecoding : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
    device_ = select_device("cuda:0");
    ASSERT_EQ(make_device_runtime(device_)->missing_kernels(), "");
    torch::manual_seed(5);
  }

  /// Layers with and without gates in turns; scores that are as often above the threshold as below.
  std::vector<Block> blocks(at::ScalarType type) const {
    std::vector<Block> made;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      GateConfig gate{.kind = GateKind::kCausal, .layer_density = {0.4, 0.4, 0.4, 1, 0.4, 0.4}};
      const Shape& shape = GetParam();
      Block block(BlockOptions{
          .attention =
              {.dim = kDim, .heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_size},
          .mlp = {.dim = kDim, .inner = shape.inner},
          .gate = {.config = gate, .dim = kDim, .layer = layer, .index = layer, .places = kCapacity},
          .layer = layer});
      init_parameters(*block, 3 + layer);
      const torch::NoGradGuard no_grad;
      for (auto& item : block->named_parameters()) {
        if (item.key().ends_with("scorer.bias")) item.value().zero_();
        if (item.key().ends_with("scorer.out")) item.value().mul_(20);
        if (item.key().ends_with("weight") && item.value().dim() == 2) item.value().mul_(2);
      }
      block->eval();
      block->to(device_);
      block->to(type);
      made.push_back(std::move(block));
    }
    return made;
  }

  KeyValueCache cache(at::ScalarType type) const {
    const Shape& shape = GetParam();
    return {{.layers = kLayers,
             .batch = shape.batch,
             .kv_heads = shape.kv_heads,
             .capacity = kCapacity,
             .head_dim = shape.head_size},
            at::TensorOptions(device_).dtype(type)};
  }

  at::Tensor states(int64_t tokens, at::ScalarType type) const {
    return at::randn({GetParam().batch, tokens, kDim}).to(device_, type);
  }

  AttentionView view(const at::Tensor& x_BTD, KeyValueCache& cache) {
    return make_attention_view(x_BTD, {}, /*causal=*/true, rope_, &cache);
  }

  at::Tensor one_by_one(std::vector<Block>& layers, at::Tensor x_BTD, KeyValueCache& cache,
                        const ForwardContext& context) {
    const AttentionView seen = view(x_BTD, cache);
    for (Block& block : layers) x_BTD = block->forward(x_BTD, seen, context);
    cache.advance(x_BTD.size(1));
    return x_BTD;
  }

  GateTrace drawn(int64_t tokens) const {
    GateTrace trace;
    for (int64_t layer = 0; layer < kLayers; ++layer)
      trace.active_BT[layer] = at::rand({GetParam().batch, tokens}).lt(0.4).to(device_);
    return trace;
  }

  at::Device device_ = at::kCPU;
  Rope rope_{kCapacity, GetParam().head_size, 10000.0};
};

TEST_P(CudaDecoding, IsThatOfTheLayersOneByOne) {
  const torch::NoGradGuard no_grad;
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    std::vector<Block> layers = blocks(type);
    KeyValueCache ours = cache(type), theirs = cache(type);
    const at::Tensor prompt = states(GetParam().prompt, type);
    const GateTrace begun = drawn(GetParam().prompt);
    one_by_one(layers, prompt, ours, {.forced_gates = &begun});
    one_by_one(layers, prompt, theirs, {.forced_gates = &begun});
    for (auto& block : layers)
      if (block->gate()) block->gate()->reset_counts();
    for (int step = 0; step < 4; ++step) {
      const at::Tensor x = states(1, type);
      const GateTrace forced = drawn(1);
      const at::Tensor got = decoded(layers, x, view(x, ours), {.forced_gates = &forced});
      ASSERT_TRUE(got.defined());
      ours.advance(1);
      std::vector<at::Tensor> counts;
      for (auto& block : layers)
        if (block->gate()) {
          counts.push_back(block->gate()->counts().clone());
          block->gate()->reset_counts();
        }
      const at::Tensor expected = one_by_one(layers, x, theirs, {.forced_gates = &forced});
      EXPECT_LT(relative_error(got, expected), type == at::kHalf ? 5e-3 : 4e-2)
          << c10::toString(type) << step;
      for (auto& block : layers)
        if (block->gate()) {
          EXPECT_LT(relative_error(counts.front(), block->gate()->counts()), 4e-2);
          counts.erase(counts.begin());
          block->gate()->reset_counts();
        }
    }
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      if (layers[static_cast<size_t>(layer)]->gate()) {
        for (int64_t row = 0; row < GetParam().batch; ++row)
          EXPECT_EQ(ours.num_keys(layer, row), theirs.num_keys(layer, row)) << layer << " " << row;
        EXPECT_LT(relative_error(ours.gate_sum(layer), theirs.gate_sum(layer)), 2e-2) << layer;
      }
    }
  }
}

TEST_P(CudaDecoding, TakesTheDecisionsOfTheGates) {
  const torch::NoGradGuard no_grad;
  std::vector<Block> layers = blocks(at::kHalf);
  KeyValueCache ours = cache(at::kHalf), theirs = cache(at::kHalf);
  const at::Tensor prompt = states(GetParam().prompt, at::kHalf);
  const GateTrace begun = drawn(GetParam().prompt);
  one_by_one(layers, prompt, ours, {.forced_gates = &begun});
  one_by_one(layers, prompt, theirs, {.forced_gates = &begun});
  double alike = 0, active = 0, all = 0;
  for (int step = 0; step < 8; ++step) {
    const at::Tensor x = states(1, at::kHalf);
    GateTrace taken, expected;
    ASSERT_TRUE(decoded(layers, x, view(x, ours), {.gate_trace = &taken}).defined());
    ours.advance(1);
    one_by_one(layers, x, theirs, {.gate_trace = &expected});
    for (const auto& [layer, active_BT] : expected.active_BT) {
      alike += active_BT.eq(taken.active_BT.at(layer)).sum().item<double>();
      active += active_BT.sum().item<double>();
      all += static_cast<double>(active_BT.numel());
    }
  }
  EXPECT_GT(active / all, 0.1);
  EXPECT_LT(active / all, 0.9);
  EXPECT_GT(alike / all, 0.96);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, CudaDecoding,
    ::testing::Values(Shape{1, 4, 4, 64, 600}, Shape{1, 2, 1, 128, 40}, Shape{2, 8, 2, 64, 300},
                      Shape{5, 4, 4, 64, 20}, Shape{8, 8, 1, 64, 1}, Shape{9, 4, 2, 128, 130},
                      Shape{33, 4, 4, 64, 30}, Shape{64, 4, 2, 64, 50}, Shape{1, 3, 3, 64, 1},
                      Shape{1, 16, 16, 64, 513}, Shape{1, 1, 1, 128, 691}, Shape{3, 4, 2, 64, 77},
                      Shape{4, 8, 1, 64, 600}, Shape{33, 4, 4, 64, 30, 5120}));  // states that do not fit

}  // namespace
}  // namespace fathom::decode_step_test
