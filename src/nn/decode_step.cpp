#include "nn/decode_step.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/decode_layers.h"

namespace fathom {
namespace {

kernels::DecodeLayer decode_layer(const Block& block, const at::Tensor& x_BTD, KeyValueCache& cache) {
  kernels::DecodeLayer layer{.weights = block->weights()};
  std::tie(layer.keys, layer.values) = cache.room(block->options().layer);
  TokenGate gate = block->acting_gate();
  if (!gate) return layer;
  layer.counts = gate->counts_on(x_BTD.device());
  if (!gate->scorer()) return layer;
  layer.scorer = gate->scorer()->weights();
  at::Tensor& sum_B1I = cache.gate_sum(block->options().layer);
  if (!sum_B1I.defined())
    sum_B1I =
        at::zeros({x_BTD.size(0), 1, layer.scorer->behind.out.numel()}, x_BTD.options().dtype(at::kFloat));
  layer.gate_sum_B1I = sum_B1I;
  return layer;
}

/// Decisions that no score takes, bool [L, B]; undefined where all are scored.
at::Tensor given_decisions(const std::vector<Block>& blocks, const at::Tensor& x_BTD,
                           const AttentionView& view, const ForwardContext& context) {
  const auto options = x_BTD.options().dtype(at::kBool);
  std::vector<at::Tensor> given_B1(blocks.size());
  bool any = false, all = true;
  for (size_t layer = 0; layer < blocks.size(); ++layer) {
    TokenGate gate = blocks[layer]->acting_gate();
    if (gate) given_B1[layer] = gate->given(x_BTD, view, context);
    any |= gate && given_B1[layer].defined();
    all &= !gate || given_B1[layer].defined();
    if (!gate) given_B1[layer] = at::ones({1, 1}, options).expand({x_BTD.size(0), 1});
  }
  FATHOM_CHECK(all || !any, "[decoded] expected all gates to be given their decisions, or none");
  return any ? at::stack(given_B1).squeeze(2) : at::Tensor();
}

}  // namespace

at::Tensor decoded(const std::vector<Block>& blocks, const at::Tensor& x_BTD, const AttentionView& view,
                   const ForwardContext& context) {
  const bool learns = context.training || (at::GradMode::is_enabled() && x_BTD.requires_grad());
  if (!x_BTD.is_cuda() || x_BTD.element_size() != 2 || x_BTD.size(1) != 1 || learns) return {};
  if (!std::all_of(blocks.begin(), blocks.end(), [](const Block& b) { return b->is_plain(); })) return {};
  if (context.products.narrow(x_BTD)) return {};  // the kernel takes operands in the states' type
  KeyValueCache& cache = *view.cache;
  const BlockOptions& first = blocks.front()->options();
  kernels::DecodeStep step{.heads = {first.attention.heads, first.attention.kv_heads},
                           .position = cache.length(),
                           .eps = first.norm_eps,
                           .gate_eps = first.gate.norm_eps,
                           .cos_TF = view.angles.cos_TF,
                           .sin_TF = view.angles.sin_TF};
  std::vector<bool> skips;
  for (const Block& block : blocks) {
    step.layers.push_back(decode_layer(block, x_BTD, cache));
    skips.push_back(static_cast<bool>(block->acting_gate()));
  }
  const at::Tensor x_BD = x_BTD.squeeze(1);
  if (!kernels::has_decode_layers(x_BD, step)) return {};
  cache.require_room(cache.length() + 1);
  step.key_count_LB = cache.device_counts(skips);
  step.meeting = cache.meeting();
  step.forced_LB = given_decisions(blocks, x_BTD, view, context);
  auto [y_BD, active_LB] = kernels::decode_layers(x_BD, step);
  if (context.gate_trace != nullptr)
    for (const Block& block : blocks)
      if (block->acting_gate())
        context.gate_trace->active_BT[block->options().layer] =
            active_LB[block->options().layer].unsqueeze(1);
  return y_BD.unsqueeze(1);
}

}  // namespace fathom
