#include "kernels/attention.h"

#include <ATen/ops/scaled_dot_product_attention.h>

#include "base/error.h"
#include "kernels/product_type.h"

namespace fathom::kernels {

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                     bool causal) {
  FATHOM_CHECK(!(causal && mask.defined()), "[attention] causal attention takes no mask");
  FATHOM_CHECK(q.size(1) % k.size(1) == 0, "[attention] {} heads for {} key-value heads", q.size(1),
               k.size(1));
  const auto type = product_type(q);
  const auto bias = mask.defined() ? std::make_optional(mask) : std::nullopt;
  const bool grouped = q.size(1) != k.size(1);
  return at::scaled_dot_product_attention(q.to(type), k.to(type), v.to(type), bias, /*dropout_p=*/0.0, causal,
                                          /*scale=*/std::nullopt, grouped)
      .to(q.scalar_type());
}

}  // namespace fathom::kernels
