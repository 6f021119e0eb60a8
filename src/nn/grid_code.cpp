#include "nn/grid_code.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace fathom {

at::Tensor grid_code(int64_t side, int64_t dim) {
  FATHOM_CHECK(side > 0 && dim > 0 && dim % 4 == 0, "[grid_code] expected a width divisible by 4, got {}",
               dim);
  const double shortest = std::numbers::pi / 2, longest = shortest / static_cast<double>(side);
  const at::Tensor frequency_F =
      at::logspace(std::log2(shortest), std::log2(longest), dim / 4, /*base=*/2.0, at::kDouble);
  const at::Tensor angle_SF = at::outer(at::arange(side, at::kDouble), frequency_F);
  const at::Tensor axis_SE = at::cat({angle_SF.sin(), angle_SF.cos()}, 1);
  const at::Tensor row_SSE = axis_SE.unsqueeze(1).expand({side, side, dim / 2});
  return at::cat({row_SSE, row_SSE.transpose(0, 1)}, 2).flatten(0, 1).to(at::kFloat);
}

}  // namespace fathom
