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

/// True at unpadded keys: [B, 1, 1, T].
at::Tensor padding_mask(const at::Tensor& length_B, int64_t tokens) {
  const auto position = at::arange(tokens, length_B.options());
  return position.unsqueeze(0).lt(length_B.unsqueeze(1)).view({-1, 1, 1, tokens});
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
  if (causal && start == 0)
    view.causal = true;
  else if (causal && count > 1)
    view.mask = continued_causal_mask(start, count, x_BTD.device());
  else if (length_B.defined())
    view.mask = padding_mask(length_B, count);
  return view;
}

void separate_segments(AttentionView& view, const at::Tensor& segment_BT) {
  FATHOM_CHECK(view.causal && view.cache == nullptr,
               "[attention] segments need a causal view without a cache");
  const int64_t tokens = segment_BT.size(1);
  view.mask = segment_BT.unsqueeze(1).eq(segment_BT.unsqueeze(2)).unsqueeze(1) &
              continued_causal_mask(0, tokens, segment_BT.device());
  view.causal = false;
}

AttentionImpl::AttentionImpl(const AttentionOptions& options) : options_(options) {
  const int64_t width = options.heads * options.head_dim, kv_width = options.kv_heads * options.head_dim;
  qkv_ = register_module(
      "qkv", Linear(LinearOptions{.in = options.dim, .out = width + 2 * kv_width, .bias = options.qkv_bias}));
  output_ = register_module(
      "output",
      Linear(LinearOptions{
          .in = width, .out = options.dim, .bias = false, .init_deviation = options.output_deviation}));
}

at::Tensor AttentionImpl::forward(const at::Tensor& x_BTD, const AttentionView& view, int64_t layer,
                                  const ForwardContext& context) {
  auto [q_BHTE, k_BKSE, v_BKSE] = kernels::rope_heads(
      qkv_(x_BTD, context), view.angles.cos_TF, view.angles.sin_TF, {options_.heads, options_.kv_heads});
  if (view.cache != nullptr) std::tie(k_BKSE, v_BKSE) = view.cache->append(layer, k_BKSE, v_BKSE);
  const auto y_BHTE = kernels::attention(q_BHTE, k_BKSE, v_BKSE, view.mask, view.causal);
  return output_(y_BHTE.transpose(1, 2).reshape({x_BTD.size(0), x_BTD.size(1), -1}), context);
}

}  // namespace fathom
