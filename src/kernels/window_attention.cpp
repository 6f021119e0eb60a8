#include "kernels/window_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>

#include <cmath>

#include "base/error.h"
#include "kernels/product_type.h"
#include "kernels/window_softmax.h"

namespace fathom::kernels {
namespace {

/// Two batched products over queries, keys and values that one copy brings to [3, B·W, H, T, E]. What is
/// written as FP16 is scaled before it is summed: the sums could leave its range.
at::Tensor attend(const at::Tensor& qkv, const at::Tensor& bias_HTT, const at::Tensor& mask_WTT) {
  const int64_t heads = bias_HTT.size(0), places = qkv.size(2), size = qkv.size(3) / 3 / heads;
  const auto packed = qkv.view({-1, places, 3, heads, size}).permute({2, 0, 3, 1, 4}).contiguous().unbind(0);
  const double scale = 1.0 / std::sqrt(size);
  const bool early = qkv.scalar_type() == at::kHalf;
  const auto scores = at::matmul(early ? packed[0] * scale : packed[0], packed[1].transpose(2, 3));
  return at::matmul(window_softmax(scores, bias_HTT, mask_WTT, early ? 1.0 : scale), packed[2]);
}

}  // namespace

at::Tensor window_attention(const at::Tensor& qkv, const at::Tensor& bias_HTT, const at::Tensor& mask_WTT) {
  FATHOM_CHECK(qkv.dim() == 4 && bias_HTT.dim() == 3 && bias_HTT.size(1) == qkv.size(2) &&
                   qkv.size(3) % (3 * bias_HTT.size(0)) == 0,
               "[window_attention] expected [B, W, {}, 3 x {} heads], got {} dimensions, the last of {}",
               bias_HTT.size(-1), bias_HTT.size(0), qkv.dim(), qkv.size(-1));
  const auto type = product_type(qkv);
  const auto x = qkv.to(type), bias = bias_HTT.to(type);
  const auto mask = mask_WTT.defined() ? mask_WTT.to(type) : mask_WTT;
  const int64_t heads = bias_HTT.size(0), places = qkv.size(2);
  return attend(x, bias, mask)
      .reshape({qkv.size(0), qkv.size(1), heads, places, -1})
      .transpose(2, 3)
      .reshape({qkv.size(0), qkv.size(1), places, qkv.size(3) / 3})
      .to(qkv.scalar_type());
}

}  // namespace fathom::kernels
