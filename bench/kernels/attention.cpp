#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include "kernels/attention.h"
#include "kernels/kernel.h"
#include "kernels/shifted_window_attention.h"
#include "kernels/window_attention.h"

namespace fathom::bench {

Kernel attention_kernel(const Operands& make, bool is_libtorch) {
  const auto heads = [&] {  // of each token side by side, as rope_heads leaves them
    return make.random({make.batch(), make.tokens(), make.heads(), make.dim / make.heads()})
        .detach()
        .transpose(1, 2)
        .requires_grad_();
  };
  const at::Tensor q = heads(), k = heads(), v = heads();
  const double n = make.numbers(), flops = 2 * n * static_cast<double>(make.tokens());
  const auto forward = [=] {
    return std::vector{is_libtorch ? at::scaled_dot_product_attention(q, k, v, std::nullopt, 0.0, true)
                                   : kernels::attention(q, k, v, {}, true)};
  };
  return {is_libtorch ? "attention_of_libtorch" : "attention",
          {q, k, v},
          forward,
          {4 * n, flops},
          {8 * n, 2.5 * flops}};
}

Kernel window_kernel(const Operands& make) {
  const kernels::WindowShape shape{.height = 14, .width = 14, .side = 7, .shift = 3};
  const int64_t images = std::max<int64_t>(1, make.rows / 196), heads = std::max<int64_t>(1, make.dim / 32);
  const at::Tensor qkv = make.random({images, 14, 14, 3 * make.dim}), bias_HTT = make.random({heads, 49, 49});
  const at::Tensor mask_WTT = at::zeros({shape.count(), 49, 49}, make.options);
  const bool is_fused = kernels::has_shifted_window_attention(qkv, shape, make.dim / heads);
  const auto forward = [=] {
    if (is_fused) return std::vector{kernels::shifted_window_attention(qkv, bias_HTT, shape)};
    const auto windows = kernels::window_partition(qkv, shape);
    return std::vector{kernels::window_merge(kernels::window_attention(windows, bias_HTT, mask_WTT), shape)};
  };
  const double n = static_cast<double>(images * 196 * make.dim), flops = 4 * n * 49;
  return {is_fused ? "shifted_window_attention" : "window_attention",
          {qkv, bias_HTT},
          forward,
          {4 * n, flops},
          {7 * n, 2 * flops}};
}

}  // namespace fathom::bench
