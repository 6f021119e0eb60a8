// Types of products and sums.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// x's own type, but float32 for BF16 on a CPU without AVX-512: LibTorch's BF16 products and attention are
/// six to eight times slower than its float32 ones there, conversions included.
at::ScalarType product_type(const at::Tensor& x);

/// `x` in float32 or wider.
at::Tensor wide(const at::Tensor& x);

}  // namespace fathom::kernels
