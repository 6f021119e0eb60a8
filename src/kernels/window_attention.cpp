#include "kernels/window_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>

#include "base/error.h"
#include "kernels/window_softmax.h"

namespace fathom::kernels {
namespace {

struct Parts {
  at::Tensor q, k, v;
};

/// Queries, keys and values by one copy of the packed tensor to [3, B, W, H, T, E], seen as `shape`.
Parts split(const at::Tensor& qkv, int64_t heads, at::IntArrayRef shape) {
  const auto sizes = qkv.sizes();
  const auto packed = qkv.view({sizes[0], sizes[1], sizes[2], 3, heads, sizes[3] / 3 / heads})
                          .permute({3, 0, 1, 4, 2, 5})
                          .contiguous()
                          .unbind(0);
  return {packed[0].view(shape), packed[1].view(shape), packed[2].view(shape)};
}

at::Tensor attend_with_products(const at::Tensor& qkv, const at::Tensor& bias_HTT,
                                const at::Tensor& mask_WTT) {
  const int64_t heads = bias_HTT.size(0), places = qkv.size(2), size = qkv.size(3) / 3 / heads;
  const auto [q, k, v] = split(qkv, heads, {qkv.size(0) * qkv.size(1), heads, places, size});
  const auto scores = at::matmul(q, k.transpose(2, 3));
  return at::matmul(window_softmax(scores, bias_HTT, mask_WTT, 1.0 / std::sqrt(size)), v);
}

at::Tensor attend_fused(const at::Tensor& qkv, const at::Tensor& bias_HTT, const at::Tensor& mask_WTT) {
  const int64_t heads = bias_HTT.size(0), windows = qkv.size(1), places = qkv.size(2),
                size = qkv.size(3) / 3 / heads;
  const auto [q, k, v] = split(qkv, heads, {qkv.size(0), windows * heads, places, size});
  auto bias = bias_HTT.unsqueeze(0).expand({windows, heads, places, places});
  if (mask_WTT.defined()) bias = bias + mask_WTT.unsqueeze(1);
  return at::scaled_dot_product_attention(q, k, v, bias.reshape({1, windows * heads, places, places}));
}

}  // namespace

at::Tensor window_attention(const at::Tensor& qkv, const at::Tensor& bias_HTT, const at::Tensor& mask_WTT) {
  FATHOM_CHECK(qkv.dim() == 4 && bias_HTT.dim() == 3 && bias_HTT.size(1) == qkv.size(2) &&
                   qkv.size(3) % (3 * bias_HTT.size(0)) == 0,
               "[window_attention] expected [B, W, {}, 3 x {} heads], got {} dimensions, the last of {}",
               bias_HTT.size(-1), bias_HTT.size(0), qkv.dim(), qkv.size(-1));
  const auto y =
      qkv.is_cpu() ? attend_with_products(qkv, bias_HTT, mask_WTT) : attend_fused(qkv, bias_HTT, mask_WTT);
  const int64_t heads = bias_HTT.size(0), places = qkv.size(2);
  return y.reshape({qkv.size(0), qkv.size(1), heads, places, -1})
      .transpose(2, 3)
      .reshape({qkv.size(0), qkv.size(1), places, qkv.size(3) / 3});
}

}  // namespace fathom::kernels
