// Blocks with gates on a GPU: what they learn, and that they wait for nothing. Skipped where there is none.
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <string>

#include "cuda_fixture.h"
#include "formula_weights.h"
#include "gradcheck.h"
#include "kernels/counted_block.h"
#include "kernels/token_scorer.h"
#include "lent_once.h"
#include "nn/block.h"
#include "nn/init.h"
#include "spoilt_memory.h"

namespace fathom::counted_block_test {
namespace {

using testing::formula_weight;
using testing::LentOnce;
using testing::relative_error;
using testing::spoil_memory;

constexpr int64_t kBatch = 3, kTokens = 70, kDim = 64, kHeadSize = 16;

Block block_of(double drop, GateKind kind = GateKind::kCausal, GatedPart part = GatedPart::kBlock) {
  Block block(BlockOptions{.attention = {.dim = kDim, .heads = 4, .kv_heads = 2, .head_dim = kHeadSize},
                           .mlp = {.dim = kDim, .inner = 96},
                           .gate = {.config = {.kind = kind, .part = part, .inner = 32},
                                    .dim = kDim,
                                    .layer = 1,
                                    .places = kTokens},
                           .dropout = drop,
                           .drop_path = drop,
                           .layer = 1});
  const at::NoGradGuard no_grad;
  for (auto& item : block->named_parameters())
    item.value().copy_(formula_weight(item.key(), item.value().sizes()));
  return block;
}

AttentionView view_of(const at::Tensor& x_BTD, const at::Tensor& length_B = {}, bool causal = true) {
  Rope table(128, kHeadSize, 10000.0);
  return make_attention_view(x_BTD, length_B, causal, table);
}

TEST(CausalScorer, HasItsDerivative) {
  const auto x = at::randn({2, 9, 12}, at::kDouble);
  const auto scores = [&](const std::vector<at::Tensor>& w) {
    return kernels::causal_scorer(x, {w[0], w[1], {w[2], w[3], w[4]}}, 1e-5).first;
  };
  testing::expect_gradients(
      scores, {at::rand({12}, at::kDouble) + 0.5, at::randn({10, 12}, at::kDouble) / 3,
               at::randn({10}, at::kDouble), at::randn({5}, at::kDouble), at::randn({1}, at::kDouble)});
}

TEST(CountedBlock, WritesGradientsOfWeightsWhereTheyAreToLie) {
  Block block = block_of(0);
  const auto x = at::randn({kBatch, kTokens, kDim});
  const auto learned_with = [&](GradientRooms* rooms) {
    const ForwardContext context{.training = true, .rooms = rooms, .sample_share = 0.25};
    block->counted(x, view_of(x), context).square().sum().backward();
    std::map<std::string, at::Tensor> gradients;
    for (auto& item : block->named_parameters()) {
      gradients[item.key()] = item.value().grad();
      item.value().mutable_grad() = at::Tensor();
    }
    return gradients;
  };
  LentOnce rooms;
  auto expected = learned_with(nullptr), got = learned_with(&rooms);
  ASSERT_EQ(rooms.count(), 5u);
  for (auto& item : block->named_parameters()) {
    EXPECT_TRUE(at::equal(got[item.key()], expected[item.key()])) << item.key();
    if (item.value().dim() != 2) continue;
    EXPECT_EQ(got[item.key()].data_ptr(), rooms.place_of(item.value())) << item.key();
  }
}

/// What is written over the gradient that came, and that what others hold of it stays as it is.
void expect_written_over(Block block, const at::Tensor& input_BTD) {
  const ForwardContext context{.training = true, .sample_share = 0.25};
  struct Seen {
    const void* above = nullptr;
    const void* below = nullptr;
    at::Tensor held, copy, gradient;
  };
  const auto backward = [&](bool holds) {
    Seen seen;
    const auto leaf = input_BTD.clone().requires_grad_(true), x = leaf * 1;
    const auto y = block->counted(x, view_of(x), context);
    y.register_hook([&](const at::Tensor& grad) {
      seen.above = grad.data_ptr();
      if (!holds) return;
      seen.held = grad;
      seen.copy = grad.clone();
    });
    x.register_hook([&](const at::Tensor& grad) { seen.below = grad.data_ptr(); });
    y.square().sum().backward();
    seen.gradient = leaf.grad().cpu();
    return seen;
  };
  const Seen spare = backward(false), held = backward(true);
  EXPECT_EQ(spare.below, spare.above);
  EXPECT_NE(held.below, held.above);
  EXPECT_TRUE(at::equal(held.held, held.copy));
  EXPECT_FALSE(at::equal(held.gradient, held.held.cpu()));
  EXPECT_LT(relative_error(held.gradient, spare.gradient), 1e-2);
}

TEST(CountedBlock, WritesItsGradientOverOneThatNobodyElseHolds) {
  expect_written_over(block_of(0), at::randn({kBatch, kTokens, kDim}));
}

class CudaGatedBlock : public cuda_test::CudaKernels {
 protected:
  ForwardContext training(const GateTrace* forced) const {
    return {.training = true,
            .key_B = (at::arange(kBatch) * 71).to(forced->active_BT.at(1).device()),
            .explore = 0.3,
            .score_values = true,
            .sample_share = 0.25,
            .forced_gates = forced};
  }
};

/// Output, and gradients of the parameters and the input.
std::vector<at::Tensor> learned(Block block, const at::Tensor& x_BTD, const at::Tensor& slope_BTD,
                                const AttentionView& view, const ForwardContext& context) {
  const auto x = x_BTD.detach().requires_grad_(true);
  const auto y = x.is_cuda() ? block->forward(x, view, context) : block->counted(x, view, context);
  std::vector<at::Tensor> leaves = block->parameters();
  leaves.push_back(x);
  std::vector<at::Tensor> found = torch::autograd::grad({y}, leaves, {slope_BTD});
  found.push_back(y.detach());
  return found;
}

/// The largest difference over the largest expected value, or over `scale` where that is larger.
double error_beside(const at::Tensor& got, const at::Tensor& expected, double scale) {
  const double largest = std::max(expected.abs().max().item<double>(), scale);
  return (got.cpu().to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() /
         (largest + 1e-30);
}

TEST_F(CudaGatedBlock, LearnsAsByTheReferences) {
  const at::Tensor some = at::rand({kBatch, kTokens}).lt(0.4);
  at::Tensor uneven = some.clone();
  uneven[1].fill_(false);
  for (const auto type : {at::kBFloat16, at::kHalf})
    for (const at::Tensor& active : {some, uneven, at::zeros_like(some), at::ones_like(some)})
      for (const double drop : {0.0, 0.3}) {
        Block expected_block = block_of(drop), block = block_of(drop);
        {
          const torch::NoGradGuard no_grad;
          for (Block* each : {&expected_block, &block})
            for (auto& parameter : (*each)->parameters()) parameter.copy_(parameter.to(type));
        }
        block->to(device_);
        expected_block->gate()->set_multiplier(at::full({}, 0.5, at::kDouble));
        block->gate()->set_multiplier(at::full({}, 0.5, at::kDouble).to(device_));
        const auto x = at::randn({kBatch, kTokens, kDim}).to(type), slope = at::randn_like(x);
        const GateTrace forced = {{{1, active}}}, forced_there = {{{1, active.to(device_)}}};
        spoil_memory(device_);
        const auto run = [&](Block each, const at::TensorOptions& place, const GateTrace* decisions) {
          const auto there = x.to(place);
          return learned(each, there, slope.to(place), view_of(there), training(decisions));
        };
        const auto got = run(block, at::TensorOptions(device_).dtype(type), &forced_there),
                   expected = run(expected_block, at::TensorOptions(at::kFloat), &forced);
        const auto names = block->named_parameters().keys();
        const auto name = [&](size_t i) { return i < names.size() ? names[i] : std::string("x or y"); };
        // What tokens give to the gate's one bias nearly cancels out: its error is judged by that of `out`.
        double scorer = 0;
        for (size_t i = 0; i < got.size(); ++i)
          if (name(i) == "gate.scorer.out") scorer = expected[i].abs().max().item<double>();
        for (size_t i = 0; i < got.size(); ++i) {
          const double scale = name(i) == "gate.scorer.bias" ? scorer : 0;
          EXPECT_LT(error_beside(got[i], expected[i], scale), type == at::kHalf ? 1e-2 : 6e-2)
              << c10::toString(type) << " " << name(i) << ", dropped " << drop << ", "
              << active.sum().item<int64_t>() << " active";
        }
        EXPECT_TRUE(at::allclose(block->gate()->counts().cpu(), expected_block->gate()->counts(), 1e-2));
      }
}

/// What the host counts, in float32 on a CPU, is what they are compared with.
TEST_F(CudaGatedBlock, LearnsByGatesOfAllSortsAsTheHostCounts) {
  struct Case {
    GateKind kind;
    bool causal, padded;
    GatedPart part = GatedPart::kBlock;
  };
  const auto length_B = at::tensor({kTokens, int64_t{20}, int64_t{1}});
  const auto present = at::arange(kTokens).unsqueeze(0).lt(length_B.unsqueeze(1));
  for (const Case& each : {Case{GateKind::kCausal, true, true}, Case{GateKind::kToken, false, false},
                           Case{GateKind::kToken, false, true}, Case{GateKind::kPooled, false, true},
                           Case{GateKind::kCausal, true, false, GatedPart::kAttention},
                           Case{GateKind::kCausal, true, true, GatedPart::kMlp},
                           Case{GateKind::kToken, false, true, GatedPart::kAttention},
                           Case{GateKind::kToken, false, true, GatedPart::kMlp}}) {
    at::Tensor active = at::rand({kBatch, kTokens}).lt(0.4);
    if (each.padded) active = active & present;
    Block block = block_of(0.2, each.kind, each.part), expected_block = block_of(0.2, each.kind, each.part);
    {
      const torch::NoGradGuard no_grad;
      for (Block* made : {&expected_block, &block})
        for (auto& parameter : (*made)->parameters()) parameter.copy_(parameter.to(at::kBFloat16));
    }
    block->to(device_);
    expected_block->gate()->set_multiplier(at::full({}, 0.5, at::kDouble));
    block->gate()->set_multiplier(at::full({}, 0.5, at::kDouble).to(device_));
    const auto x = at::randn({kBatch, kTokens, kDim}).to(at::kBFloat16), slope = at::randn_like(x);
    const GateTrace forced = {{{1, active}}}, forced_there = {{{1, active.to(device_)}}};
    bool waited = false;
    const auto run = [&](Block made, const at::TensorOptions& place, const GateTrace* decisions) {
      const auto there = x.to(place);
      const auto length_there = each.padded ? length_B.to(place.device()) : at::Tensor();
      ForwardContext context = training(decisions);
      context.waited = &waited;
      const auto leaf = there.detach().requires_grad_(true);
      const auto y = made->forward(leaf, view_of(there, length_there, each.causal), context);
      auto weight = slope.to(place);
      if (each.padded) weight = weight * present.to(place.device()).unsqueeze(2);
      std::vector<at::Tensor> leaves = made->parameters();
      leaves.push_back(leaf);
      auto found = torch::autograd::grad({y}, leaves, {weight});
      found.push_back(y.detach());
      return found;
    };
    spoil_memory(device_);
    const auto got = run(block, at::TensorOptions(device_).dtype(at::kBFloat16), &forced_there);
    const std::string what = std::string(gate_kind_name(each.kind)) + (each.padded ? ", padded" : "") +
                             ", part " + std::to_string(static_cast<int>(each.part));
    EXPECT_FALSE(waited) << what;
    const auto expected = run(expected_block, at::TensorOptions(at::kFloat), &forced);
    const auto names = block->named_parameters().keys();
    double scorer = 0;
    for (size_t i = 0; i < names.size(); ++i)
      if (names[i] == "gate.scorer.out") scorer = expected[i].abs().max().item<double>();
    for (size_t i = 0; i < got.size(); ++i) {
      const std::string name = i < names.size() ? names[i] : "x or y";
      EXPECT_LT(error_beside(got[i], expected[i], name == "gate.scorer.bias" ? scorer : 0), 6e-2)
          << name << ", " << what;
    }
    EXPECT_TRUE(at::allclose(block->gate()->counts().cpu(), expected_block->gate()->counts(), 1e-2)) << what;
  }
}

/// Texts that share a row, and what adapters add, have no kernels.
TEST_F(CudaGatedBlock, WaitsWhereThereAreNoKernels) {
  const auto x = at::randn({kBatch, kTokens, kDim}).to(device_, at::kBFloat16);
  const auto waits = [&](Block block, const AttentionView& view) {
    block->to(device_, at::kBFloat16);
    bool waited = false;
    block->forward(x, view, {.waited = &waited});
    return waited;
  };
  EXPECT_FALSE(waits(block_of(0), view_of(x)));
  AttentionView joined = view_of(x);
  separate_segments(joined, at::arange(kTokens).floor_divide(30).expand({kBatch, kTokens}).to(device_));
  EXPECT_TRUE(waits(block_of(0), joined));
  Block adapted = block_of(0);
  const auto qkv = std::dynamic_pointer_cast<LinearImpl>(adapted->named_modules()["attention.qkv"]);
  ASSERT_TRUE(qkv);
  qkv->add_adapter("a", {.rank = 2, .alpha = 2});
  EXPECT_TRUE(waits(adapted, view_of(x)));
  EXPECT_TRUE(waits(block_of(0, GateKind::kTopK), view_of(x)));
}

TEST_F(CudaGatedBlock, WritesItsGradientOverOneThatNobodyElseHolds) {
  Block block = block_of(0);
  block->to(device_);
  expect_written_over(block, at::randn({kBatch, kTokens, kDim}).to(device_, at::kBFloat16));
}

/// Launched, and as a branch of a recording.
TEST_F(CudaGatedBlock, GradientsMadeBesideAreThoseMadeInTurn) {
  Block block = block_of(0.2);
  block->to(device_);
  const auto x = at::randn({kBatch, kTokens, kDim}).to(device_, at::kBFloat16), slope = at::randn_like(x);
  const GateTrace forced = {{{1, at::rand({kBatch, kTokens}).lt(0.4).to(device_)}}};
  const AttentionView view = view_of(x);
  ForwardContext context = training(&forced);
  const auto expected = learned(block, x, slope, view, context);
  SideStream side(device_);
  const auto beside = [&] {
    LentOnce rooms(&side);
    context.rooms = &rooms;
    auto found = learned(block, x, slope, view, context);
    side.join();
    EXPECT_EQ(rooms.count(), 5u);
    return found;
  };
  const auto expect_equal = [&](const std::vector<at::Tensor>& found) {
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_LT(relative_error(found[i].cpu(), expected[i].cpu()), 1e-2) << i;
  };
  for (int i = 0; i < 3; ++i) {
    spoil_memory(device_);
    expect_equal(beside());
  }
  std::vector<at::Tensor> recorded;
  const auto graph = runtime_->make_graph(nullptr);
  graph->capture([&] { recorded = beside(); });
  for (int i = 0; i < 3; ++i) {
    graph->replay();
    expect_equal(recorded);
  }
}

/// What a scorer makes the second time is added to what it made beside.
TEST_F(CudaGatedBlock, GradientsOfTwoUsesAreTheSameBeside) {
  Block block = block_of(0);
  block->to(device_);
  const auto x = at::randn({kBatch, kTokens, kDim}).to(device_, at::kBFloat16), other = at::randn_like(x),
             slope = at::randn_like(x);
  const GateTrace forced = {{{1, at::rand({kBatch, kTokens}).lt(0.4).to(device_)}}};
  const AttentionView view = view_of(x);
  const auto twice = [&](GradientRooms* rooms) {
    ForwardContext context = training(&forced);
    context.rooms = rooms;
    const auto y = block->forward(x, view, context) + block->forward(other, view, context);
    return torch::autograd::grad({y}, block->parameters(), {slope});
  };
  SideStream side(device_);
  LentOnce rooms(&side);
  const auto found = twice(&rooms);
  side.join();
  const auto expected = twice(nullptr);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_LT(relative_error(found[i].cpu(), expected[i].cpu()), 2e-2) << i;
}

/// What waits for the device cannot be recorded.
TEST_F(CudaGatedBlock, ARecordedStepFollowsTheDecisions) {
  Block block = block_of(0.2);
  block->to(device_);
  const auto type = at::kBFloat16;
  const auto x = at::randn({kBatch, kTokens, kDim}).to(device_, type), slope = at::randn_like(x);
  const GateTrace forced = {{{1, at::rand({kBatch, kTokens}).lt(0.4).to(device_)}}};
  const ForwardContext context = training(&forced);
  const AttentionView view = view_of(x);
  for (int i = 0; i < 3; ++i) learned(block, x, slope, view, context);
  std::vector<at::Tensor> recorded;
  const auto graph = runtime_->make_graph(nullptr);
  ASSERT_TRUE(graph);
  graph->capture([&] { recorded = learned(block, x, slope, view, context); });
  for (const double density : {0.1, 0.7}) {
    forced.active_BT.at(1).copy_(at::rand({kBatch, kTokens}).lt(density));
    graph->replay();
    const auto expected = learned(block, x, slope, view, context);
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_LT(relative_error(recorded[i].cpu(), expected[i].cpu()), 1e-2) << i << " at " << density;
  }
}

}  // namespace
}  // namespace fathom::counted_block_test
