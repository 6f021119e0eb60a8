#include "kernels/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "kernels/flash_attention.h"
#include "kernels/product_type.h"
#include "kernels/short_attention.h"

namespace fathom::kernels {

namespace {

/// Whether a few new tokens look at the keys of a cache, which grows by every step: LibTorch's first choice
/// on a GPU, cuDNN's attention, is prepared anew for each length, which takes longer than all the rest.
bool extends_cache(const at::Tensor& q, const at::Tensor& k, const at::Tensor& mask) {
  const bool half = q.scalar_type() == at::kHalf || q.scalar_type() == at::kBFloat16;
  return q.is_cuda() && half && !mask.defined() && !c10::GradMode::is_enabled() && q.size(2) < k.size(2) &&
         q.size(3) % 8 == 0 && q.size(3) <= 256;
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                     bool causal) {
  FATHOM_CHECK(!(causal && mask.defined()), "[attention] causal attention takes no mask");
  FATHOM_CHECK(q.size(1) % k.size(1) == 0, "[attention] {} heads for {} key-value heads", q.size(1),
               k.size(1));
  if (!causal && extends_cache(q, k, mask)) {
    const auto type = q.scalar_type();
    return std::get<0>(at::_scaled_dot_product_flash_attention(q, k.to(type), v.to(type)));
  }
  if (has_short_attention(q, k))
    return short_attention(q, k.to(q.scalar_type()), v.to(q.scalar_type()), mask, causal);
  if (has_flash_attention(q, k, v, mask)) return flash_attention(q, k, v, causal);
  const auto type = product_type(q);
  const auto bias = mask.defined() ? std::make_optional(mask) : std::nullopt;
  const bool grouped = q.size(1) != k.size(1);
  return at::scaled_dot_product_attention(q.to(type), k.to(type), v.to(type), bias, /*dropout_p=*/0.0, causal,
                                          /*scale=*/std::nullopt, grouped)
      .to(q.scalar_type());
}

}  // namespace fathom::kernels
