#include "nn/attention.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/rope_heads.h"

namespace fathom {
namespace {

/// True where key s ≤ start + t: for several new tokens behind a filled cache. [T, S]
at::Tensor continued_causal_mask(int64_t start, int64_t count, at::Device device) {
  return at::ones({count, start + count}, at::TensorOptions().dtype(at::kBool).device(device)).tril(start);
}

/// True at unpadded tokens: [B, T].
at::Tensor unpadded(const at::Tensor& length_B, int64_t tokens) {
  return at::arange(tokens, length_B.options()).unsqueeze(0).lt(length_B.unsqueeze(1));
}

struct CacheLayer {
  KeyValueCache& cache;
  int64_t layer;
};

/// The rows of each sequence look at what the cache holds of it and, in order, at one another. [H, N, E]
at::Tensor cached_attention(const at::Tensor& q_HNE, const at::Tensor& k_KNE, const at::Tensor& v_KNE,
                            const kernels::VarlenLayout& layout, const CacheLayer& place) {
  std::vector<at::Tensor> parts;
  const auto* start = layout.start_S1.const_data_ptr<int64_t>();
  for (int64_t row = 0; row + 1 < layout.start_S1.numel(); ++row) {
    const int64_t count = start[row + 1] - start[row];
    if (count == 0) continue;
    const auto part = [&](const at::Tensor& x) { return x.narrow(1, start[row], count).unsqueeze(0); };
    const auto [k_1KSE, v_1KSE] = place.cache.append(place.layer, row, part(k_KNE), part(v_KNE));
    const int64_t before = k_1KSE.size(2) - count;
    const auto mask =
        before > 0 && count > 1 ? continued_causal_mask(before, count, q_HNE.device()) : at::Tensor();
    parts.push_back(kernels::attention(part(q_HNE), k_1KSE, v_1KSE, mask, before == 0).squeeze(0));
  }
  return parts.empty() ? q_HNE : at::cat(parts, 1);
}

}  // namespace

AttentionView make_attention_view(const at::Tensor& x_BTD, const at::Tensor& length_B, bool causal,
                                  Rope& rope, KeyValueCache* cache) {
  const int64_t count = x_BTD.size(1), start = cache != nullptr ? cache->length() : 0;
  FATHOM_CHECK(cache == nullptr || (causal && !length_B.defined()),
               "[attention] a cache serves causal attention over unpadded rows");
  AttentionView view;
  view.angles = rope.angles(start, count, x_BTD.device());
  view.cache = cache;
  view.ordered = causal;
  if (length_B.defined()) view.present_BT = unpadded(length_B, count);
  if (causal && start == 0)
    view.causal = true;
  else if (causal && count > 1)
    view.mask = continued_causal_mask(start, count, x_BTD.device());
  else if (length_B.defined())
    view.mask = view.present_BT.unsqueeze(1).unsqueeze(1);
  return view;
}

void separate_segments(AttentionView& view, const at::Tensor& segment_BT) {
  FATHOM_CHECK(view.causal && view.cache == nullptr,
               "[attention] segments need a causal view without a cache");
  const int64_t tokens = segment_BT.size(1);
  view.mask = segment_BT.unsqueeze(1).eq(segment_BT.unsqueeze(2)).unsqueeze(1) &
              continued_causal_mask(0, tokens, segment_BT.device());
  view.causal = false;
  view.segment_BT = segment_BT;
}

AttentionImpl::AttentionImpl(const AttentionOptions& options) : options_(options) {
  const int64_t width = options.heads * options.head_dim, kv_width = options.kv_heads * options.head_dim;
  qkv_ = register_module(
      "qkv",
      Linear(LinearOptions{
          .in = options.dim, .out = width + 2 * kv_width, .bias = options.qkv_bias, .in_block = true}));
  output_ = register_module("output", Linear(LinearOptions{.in = width,
                                                           .out = options.dim,
                                                           .bias = false,
                                                           .init_deviation = options.output_deviation,
                                                           .in_block = true}));
}

at::Tensor AttentionImpl::forward(const at::Tensor& x_BTD, const AttentionView& view, int64_t layer,
                                  const ForwardContext& context) {
  const auto qkv = qkv_(x_BTD, context, Feeds::kProduct);
  const auto &cos_TF = view.angles.cos_TF, &sin_TF = view.angles.sin_TF;
  const kernels::HeadLayout layout = {options_.heads, options_.kv_heads};
  at::Tensor q_BHTE, k_BKSE, v_BKSE;
  if (view.cache == nullptr) {
    std::tie(q_BHTE, k_BKSE, v_BKSE) = kernels::rope_heads(qkv, cos_TF, sin_TF, layout);
  } else {
    const auto [keys, values] = view.cache->next(layer, x_BTD.size(1));
    std::tie(q_BHTE, k_BKSE, v_BKSE) = kernels::rope_heads_kept(qkv, cos_TF, sin_TF, layout, keys, values);
    // Of a prompt's first tokens the cache holds no others: they are taken as they were made, rows side by
    // side.
    if (!view.causal) std::tie(k_BKSE, v_BKSE) = view.cache->with_next(layer, x_BTD.size(1));
  }
  const auto y_BHTE = kernels::attention(q_BHTE, k_BKSE, v_BKSE, view.mask, view.causal);
  return output_(y_BHTE.transpose(1, 2).reshape({x_BTD.size(0), x_BTD.size(1), -1}), context);
}

at::Tensor AttentionImpl::forward_tokens(const at::Tensor& x_ND, const ComputedTokens& tokens,
                                         const AttentionView& view, int64_t layer,
                                         const ForwardContext& context) {
  const auto position_N = at::remainder(tokens.place_N, tokens.tokens);
  auto [q_1HNE, k_1KNE, v_1KNE] = kernels::rope_heads(
      qkv_(x_ND, context, Feeds::kProduct).unsqueeze(0), view.angles.cos_TF.index_select(0, position_N),
      view.angles.sin_TF.index_select(0, position_N), {options_.heads, options_.kv_heads});
  const auto q_HNE = q_1HNE.squeeze(0), k_KNE = k_1KNE.squeeze(0);
  auto v_KNE = v_1KNE.squeeze(0);
  if (tokens.value_weight_N.defined())
    v_KNE = v_KNE * tokens.value_weight_N.to(v_KNE.scalar_type()).unsqueeze(1);
  const auto y_HNE = view.cache != nullptr
                         ? cached_attention(q_HNE, k_KNE, v_KNE, tokens.layout, {*view.cache, layer})
                         : kernels::varlen_attention(q_HNE, k_KNE, v_KNE, tokens.layout);
  return output_(y_HNE.transpose(0, 1).flatten(1), context);
}

}  // namespace fathom
