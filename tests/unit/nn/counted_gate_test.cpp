// Gated blocks whose rows the device counts, by the references of its operations.
#include <c10/core/Allocator.h>
#include <torch/torch.h>

#include "gated_block_fixture.h"
#include "gradcheck.h"

namespace fathom::counted_gate_test {
namespace {

using namespace testing;

TEST(CausalGate, RowsThatTheDeviceCountsAreThoseThatTheHostCounts) {
  const torch::NoGradGuard no_grad;
  Block block = block_of({.kind = GateKind::kCausal});
  block->to(at::kFloat);
  const auto x = states().to(at::kFloat);
  const auto next = formula_uniform("next", kBatch * kDim).view({kBatch, 1, kDim}).to(at::kFloat);
  const auto make_cache = [] {
    return KeyValueCache({.layers = 2, .batch = kBatch, .kv_heads = 2, .capacity = 20, .head_dim = 6},
                         at::kFloat);
  };
  const auto follow = [&](KeyValueCache& cache) {
    cache.advance(kTokens);
    Rope table = rope();
    return block->forward(next, make_attention_view(next, {}, true, table, &cache), {});
  };
  KeyValueCache by_host = make_cache(), by_device = make_cache();
  const auto with_cache = [&](KeyValueCache& cache) {
    Rope table = rope();
    return make_attention_view(x, {}, true, table, &cache);
  };
  GateTrace host, device;
  block->gate()->reset_counts();
  const auto expected = block->forward(x, with_cache(by_host), {.gate_trace = &host});
  const auto counts = block->gate()->counts().clone();
  block->gate()->reset_counts();
  const auto got = block->counted(x, with_cache(by_device), {.gate_trace = &device});
  EXPECT_GT(counts[GateCounts::kActive].item<double>(), 3);
  EXPECT_TRUE(at::allclose(block->gate()->counts(), counts, 1e-5));
  EXPECT_TRUE(at::equal(device.active_BT.at(1), host.active_BT.at(1)));
  EXPECT_LT(relative_error(got, expected), 1e-5);
  EXPECT_LT(relative_error(follow(by_device), follow(by_host)), 1e-5);
  for (int64_t row = 0; row < kBatch; ++row) EXPECT_EQ(by_device.num_keys(1, row), by_host.num_keys(1, row));
}

/// A kernel appends single tokens and counts them on the device; other tokens go through the layers in turn.
TEST(KeyValueCache, CountsOnTheDeviceFollowTheLayers) {
  KeyValueCache cache({.layers = 2, .batch = 2, .kv_heads = 1, .capacity = 20, .head_dim = 4}, at::kFloat);
  const auto tokens = [](int64_t batch, int64_t count) { return at::zeros({batch, 1, count, 4}); };
  const auto counts = [](const std::vector<int>& all) { return at::tensor(all, at::kInt).view({2, 2}); };
  const std::vector<bool> skips = {false, true};
  cache.append(1, /*row=*/0, tokens(1, 2), tokens(1, 2));
  cache.advance(3);
  at::Tensor held = cache.device_counts(skips);
  EXPECT_TRUE(at::equal(held, counts({3, 3, 2, 0})));
  held.add_(counts({1, 1, 0, 1}));  // as the kernel does
  cache.advance(1);
  const at::Tensor kept = cache.device_counts(skips);
  EXPECT_TRUE(at::equal(kept, counts({4, 4, 2, 1})));
  kept.add_(counts({1, 1, 1, 0}));
  cache.advance(1);
  EXPECT_TRUE(cache.device_counts(skips).is_same(kept));
  kept.add_(counts({1, 1, 0, 0}));
  cache.advance(1);
  cache.advance(5);  // none of these is active in the other layer
  EXPECT_TRUE(at::equal(cache.device_counts(skips), counts({11, 11, 3, 1})));
  EXPECT_EQ(cache.num_keys(1, 0), 3);
  EXPECT_EQ(cache.num_keys(1, 1), 1);
}

/// What a training step makes of a block: output, gradients of input and parameters, decisions, counts.
struct Learned {
  at::Tensor y_BTD, active_BT, counts;
  std::vector<at::Tensor> grads;
};
/// `forward` with the part that is gated counted: the other is what a block does whose gate lets nothing
/// through.
at::Tensor counted_pass(Block block, const at::Tensor& x_BTD, const AttentionView& view,
                        const ForwardContext& context) {
  const GatedPart part = block->gate()->options().config.part;
  if (part == GatedPart::kBlock) return block->counted(x_BTD, view, context);
  const GateTrace none = {{{1, at::zeros({x_BTD.size(0), x_BTD.size(1)}, at::kBool)}}};
  ForwardContext apart = context;
  apart.forced_gates = &none;
  apart.gate_trace = nullptr;
  apart.explore = 0;
  apart.sample_share = 0;
  const auto rest = [&](const at::Tensor& x) { return block->forward(x, view, apart); };
  return part == GatedPart::kAttention ? rest(block->counted(x_BTD, view, context))
                                       : block->counted(rest(x_BTD), view, context);
}

Learned learned(Block block, at::Tensor x_BTD, const AttentionView& view, ForwardContext context,
                bool counted) {
  GateTrace trace;
  context.gate_trace = &trace;
  if (block->gate()->counts().defined()) block->gate()->reset_counts();
  x_BTD = x_BTD.detach().requires_grad_(true);
  std::vector<at::Tensor> leaves = block->parameters();
  leaves.push_back(x_BTD);
  const auto y_BTD =
      counted ? counted_pass(block, x_BTD, view, context) : block->forward(x_BTD, view, context);
  const auto slope_BTD = formula_uniform("slope", y_BTD.numel()).view(y_BTD.sizes()).to(y_BTD.options());
  auto grads = torch::autograd::grad({(y_BTD * slope_BTD).sum()}, leaves, {}, {}, false, true);
  for (size_t i = 0; i < grads.size(); ++i)
    if (!grads[i].defined()) grads[i] = at::zeros_like(leaves[i]);
  return {y_BTD.detach(), trace.active_BT.at(1), block->gate()->counts().clone(), std::move(grads)};
}

/// Decisions of all sorts: about half of the tokens, the same without a sequence, no token, every token.
std::vector<at::Tensor> decisions_of_all_sorts(int64_t tokens) {
  const auto some = formula_uniform("some", kBatch * tokens).view({kBatch, tokens}).gt(0);
  auto uneven = some.clone();
  uneven[1].fill_(false);
  return {some, uneven, at::zeros_like(some), at::ones_like(some)};
}

TEST(CausalGate, LearnsOnRowsThatTheDeviceCountsAsOnThoseThatTheHostCounts) {
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  std::vector<at::Tensor> forced = decisions_of_all_sorts(kTokens);
  forced.emplace_back();  // the gate's own
  for (const at::Tensor& active_BT : forced)
    for (const double explore : {0.0, 0.4})
      for (const double drop : {0.0, 0.3})
        for (const bool dense : {false, true}) {
          Block block = block_of({.kind = GateKind::kCausal}, drop);
          block->gate()->set_dense(dense);
          block->gate()->set_multiplier(at::full({}, 3.0, at::kDouble));
          const GateTrace trace = {{{1, active_BT}}};
          const ForwardContext context = {.training = true,
                                          .key_B = at::arange(kBatch) * 71,
                                          .explore = explore,
                                          .sample_share = 0.25,
                                          .forced_gates = active_BT.defined() ? &trace : nullptr};
          const Learned host = learned(block, x, view, context, /*counted=*/false),
                        device = learned(block, x, view, context, /*counted=*/true);
          EXPECT_TRUE(at::equal(device.active_BT, host.active_BT));
          EXPECT_LT(relative_error(device.counts, host.counts), 1e-12);
          EXPECT_LT(relative_error(device.y_BTD, host.y_BTD), 1e-12);
          const auto names = block->named_parameters().keys();
          for (size_t i = 0; i < host.grads.size(); ++i)
            EXPECT_LT(relative_error(device.grads[i], host.grads[i]), 1e-12)
                << (i < names.size() ? names[i] : "x") << ", explored " << explore << ", dropped " << drop;
        }
}

TEST(CausalGate, ScoresLearnFromValuesOnRowsThatTheDeviceCounts) {
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  for (const at::Tensor& active_BT : decisions_of_all_sorts(kTokens)) {
    Block block = block_of({.kind = GateKind::kCausal}, 0.2);
    const GateTrace trace = {{{1, active_BT}}};
    ForwardContext context = {.training = true,
                              .key_B = at::arange(kBatch) * 71,
                              .explore = 0.4,
                              .score_values = true,
                              .sample_share = 0.25,
                              .forced_gates = &trace};
    const Learned host = learned(block, x, view, context, /*counted=*/false),
                  device = learned(block, x, view, context, /*counted=*/true);
    context.score_values = false;
    const Learned plain = learned(block, x, view, context, /*counted=*/true);
    double scorer = 0;
    const auto names = block->named_parameters().keys();
    for (size_t i = 0; i < host.grads.size(); ++i) {
      EXPECT_LT(relative_error(device.grads[i], host.grads[i]), 1e-12) << (i < names.size() ? names[i] : "x");
      if (i < names.size() && names[i].starts_with("gate."))
        scorer = std::max(scorer, relative_error(device.grads[i], plain.grads[i]));
    }
    if (active_BT.any().item<bool>()) {
      EXPECT_GT(scorer, 1e-3);
    }
  }
}

/// Texts of several lengths in a batch, in order or not, by every kind of gate, of blocks and of their parts.
TEST(GatedBlock, LearnsOnRowsOfAllSortsThatTheDeviceCounts) {
  const auto x = states();
  const auto length_B = at::tensor({kTokens, int64_t{4}, int64_t{7}});
  std::vector<at::Tensor> forced = decisions_of_all_sorts(kTokens);
  for (at::Tensor& active_BT : forced)
    active_BT = active_BT & at::arange(kTokens).unsqueeze(0).lt(length_B.unsqueeze(1));
  forced.emplace_back();  // the gate's own
  struct Case {
    GateKind kind;
    bool causal, padded;
    GatedPart part = GatedPart::kBlock;
  };
  for (const Case& each : {Case{GateKind::kCausal, true, true}, Case{GateKind::kToken, false, false},
                           Case{GateKind::kToken, false, true}, Case{GateKind::kPooled, false, true},
                           Case{GateKind::kRandom, false, true}, Case{GateKind::kAlternate, true, true},
                           Case{GateKind::kCausal, true, false, GatedPart::kAttention},
                           Case{GateKind::kCausal, true, true, GatedPart::kMlp},
                           Case{GateKind::kToken, false, true, GatedPart::kAttention},
                           Case{GateKind::kToken, false, true, GatedPart::kMlp}})
    for (const double explore : {0.0, 0.4})
      for (const bool values : {false, true})
        for (const at::Tensor& active_BT : forced) {
          Block block = block_of({.kind = each.kind, .part = each.part, .density = 0.5}, 0.2);
          block->gate()->set_multiplier(at::full({}, 3.0, at::kDouble));
          const auto view = view_of(x, each.causal, each.padded ? length_B : at::Tensor());
          const GateTrace trace = {{{1, active_BT}}};
          const ForwardContext context = {.training = true,
                                          .key_B = at::arange(kBatch) * 71,
                                          .explore = explore,
                                          .score_values = values,
                                          .sample_share = 0.25,
                                          .forced_gates = active_BT.defined() ? &trace : nullptr};
          const Learned host = learned(block, x, view, context, /*counted=*/false),
                        device = learned(block, x, view, context, /*counted=*/true);
          const auto names = block->named_parameters().keys();
          EXPECT_TRUE(at::equal(device.active_BT, host.active_BT)) << gate_kind_name(each.kind);
          EXPECT_LT(relative_error(device.counts, host.counts), 1e-12) << gate_kind_name(each.kind);
          EXPECT_LT(relative_error(device.y_BTD, host.y_BTD), 1e-12) << gate_kind_name(each.kind);
          for (size_t i = 0; i < host.grads.size(); ++i)
            EXPECT_LT(relative_error(device.grads[i], host.grads[i]), 1e-12)
                << (i < names.size() ? names[i] : "x") << ", " << gate_kind_name(each.kind) << ", explored "
                << explore;
        }
}

/// What a gradient beside the objective is multiplied with, so is the price of a token.
TEST(CausalGate, PricesOfRowsThatTheDeviceCountsFollowTheLossScale) {
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  Block block = block_of({.kind = GateKind::kCausal});
  block->gate()->set_multiplier(at::full({}, 3.0, at::kDouble));
  const ForwardContext context = {.training = true, .loss_scale = at::full({}, 8.0), .sample_share = 0.25};
  const Learned host = learned(block, x, view, context, /*counted=*/false),
                device = learned(block, x, view, context, /*counted=*/true);
  for (size_t i = 0; i < host.grads.size(); ++i)
    EXPECT_LT(relative_error(device.grads[i], host.grads[i]), 1e-12) << i;
}

TEST(RandomGate, LearnsOnRowsThatTheDeviceCounts) {
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  Block block = block_of({.kind = GateKind::kRandom, .density = 0.4}, 0.2);
  const ForwardContext context = {
      .training = true, .key_B = at::arange(kBatch), .explore = 0.4, .sample_share = 0.25};
  const Learned host = learned(block, x, view, context, /*counted=*/false),
                device = learned(block, x, view, context, /*counted=*/true);
  EXPECT_LT(relative_error(device.y_BTD, host.y_BTD), 1e-12);
  for (size_t i = 0; i < host.grads.size(); ++i)
    EXPECT_LT(relative_error(device.grads[i], host.grads[i]), 1e-12) << i;
}

/// The most bytes that tensors made under its guard held at once.
class HeldBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* /*data*/, int64_t bytes, size_t /*allocated*/, size_t /*reserved*/,
                         c10::Device /*device*/) override {
    now_ += bytes;
    most_ = std::max(most_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t most() const { return most_; }

 private:
  int64_t now_ = 0, most_ = 0;
};

TEST(GatedBlock, FreesWhatItHasUsedWhereNothingIsLearned) {
  Block block = block_of({.kind = GateKind::kCausal});
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  const GateTrace forced = {{{1, formula_uniform("few", kBatch * kTokens).view({kBatch, kTokens}).gt(0.5)}}};
  const auto most_bytes = [&](bool learns) {
    const at::AutoGradMode mode(learns);
    const auto held = std::make_shared<HeldBytes>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, held);
    const auto y = block->counted(x, view, {.forced_gates = &forced});
    EXPECT_EQ(y.requires_grad(), learns);
    return static_cast<double>(held->most());
  };
  EXPECT_LT(most_bytes(false), 0.6 * most_bytes(true));
}

TEST(GatedBlock, WritesOverStatesThatNobodyElseWants) {
  Block block = block_of({.kind = GateKind::kCausal});
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  const GateTrace some = {{{1, decisions_of_all_sorts(kTokens).front()}}};
  const ForwardContext context = {.forced_gates = &some};
  const auto before = x.clone();
  const auto expected = block->counted(x, view, context).detach();  // with gradients nothing is written over
  EXPECT_TRUE(at::equal(block->counted(x, view, context, /*overwrites=*/true), expected));
  EXPECT_TRUE(at::equal(x, before));
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(block->counted(x, view, context), expected));
  EXPECT_TRUE(at::equal(x, before));
  const auto got = block->counted(x, view, context, /*overwrites=*/true);
  EXPECT_TRUE(at::equal(got, expected));
  EXPECT_EQ(got.data_ptr(), x.data_ptr());
}

TEST(GatedBlock, WaitsForTheRowsThatTheHostCountsAlone) {
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  for (const GateKind kind : {GateKind::kCausal, GateKind::kRandom}) {
    Block block = block_of({.kind = kind, .density = 0.4});
    bool waited = false;
    const ForwardContext context = {.training = true,
                                    .key_B = at::arange(kBatch),
                                    .explore = 0.4,
                                    .sample_share = 0.25,
                                    .waited = &waited};
    block->counted(x, view, context);
    EXPECT_FALSE(waited) << gate_kind_name(kind);
    block->forward(x, view, context);
    EXPECT_TRUE(waited) << gate_kind_name(kind);
  }
}

}  // namespace
}  // namespace fathom::counted_gate_test
