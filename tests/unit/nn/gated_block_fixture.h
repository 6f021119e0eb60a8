// A gated block with weights by formula, and what it computes.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "formula_weights.h"
#include "nn/block.h"
#include "nn/token_gate.h"

namespace fathom::testing {

constexpr int64_t kBatch = 3, kTokens = 11, kDim = 24, kHeads = 4;

inline BlockOptions options(const GateConfig& gate, double drop = 0) {
  return {.attention = {.dim = kDim, .heads = kHeads, .kv_heads = 2, .head_dim = 6},
          .mlp = {.dim = kDim, .inner = 40},
          .gate = {.config = gate, .dim = kDim, .layer = 1, .index = 1, .places = 16},
          .dropout = drop,
          .drop_path = drop,
          .layer = 1};
}

inline Block block_of(const GateConfig& gate, double drop = 0) {
  Block block(options(gate, drop));
  const at::NoGradGuard no_grad;
  for (auto& item : block->named_parameters()) {
    item.value().copy_(formula_weight(item.key(), item.value().sizes()));
    if (item.key().ends_with("scorer.out")) item.value().mul_(20);
    if (item.key().ends_with("pooled.up.weight")) item.value().mul_(20);
    if (item.key().ends_with("pooled.up.bias")) item.value().sub_(2);
  }
  block->to(at::kDouble);
  return block;
}

inline at::Tensor states(int64_t batch = kBatch) {
  return formula_uniform("states", batch * kTokens * kDim).view({batch, kTokens, kDim}).mul(3);
}

inline Rope rope() {
  return {128, 6, 10000.0};
}

inline AttentionView view_of(const at::Tensor& x_BTD, bool causal, const at::Tensor& length_B = {}) {
  Rope table = rope();
  return make_attention_view(x_BTD, length_B, causal, table);
}

struct Outcome {
  at::Tensor y_BTD, active_BT;
};
inline Outcome run(Block block, const at::Tensor& x_BTD, const AttentionView& view,
                   ForwardContext context = {}) {
  GateTrace trace;
  context.gate_trace = &trace;
  const auto y_BTD = block->forward(x_BTD, view, context);
  return {y_BTD, trace.active_BT.at(1)};
}

/// The block without its gate, in which tokens see the active ones alone.
inline at::Tensor dense_over(const Block& gated, const at::Tensor& x_BTD, AttentionView view,
                             const at::Tensor& active_BT) {
  Block dense(options({}));
  dense->to(at::kDouble);
  const at::NoGradGuard no_grad;
  const auto parameters = gated->named_parameters();
  for (auto& item : dense->named_parameters()) item.value().copy_(parameters[item.key()]);
  auto sees = active_BT.unsqueeze(1) | at::eye(kTokens, at::kBool);
  if (view.ordered) sees = sees.tril();
  view.mask = sees.unsqueeze(1);
  view.causal = false;
  return dense->forward(x_BTD, view, {});
}

class LearnedGate : public ::testing::TestWithParam<GateKind> {
 protected:
  bool causal() const { return GetParam() == GateKind::kCausal; }
};

}  // namespace fathom::testing
