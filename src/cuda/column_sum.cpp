// fathom::column_sum on a GPU: checks and registration. What the kernel does not take goes to LibTorch's.
#include "cuda/column_sum.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "cuda/sum_of_parts.h"

namespace fathom::cuda {
namespace {

at::Tensor column_sum(const at::Tensor& x_in, std::optional<at::ScalarType> asked) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  FATHOM_CHECK(x_in.dim() > 0, "[column_sum] expected rows, got a number");
  const auto x = x_in.contiguous();
  const ElementType type = element_type_of(x, "column_sum");
  const int64_t dim = x.size(-1), width = 16 / static_cast<int64_t>(x.element_size());
  if (type == ElementType::kDouble || x.numel() == 0 || dim % width != 0 ||
      !are_aligned16({x.const_data_ptr()}))
    return at::sum(x.view({-1, dim}), {0}, /*keepdim=*/false, asked);
  const int64_t rows = x.numel() / dim, blocks = column_sum_blocks(type, rows, dim);
  auto partial = at::empty({blocks, dim}, x.options().dtype(at::kFloat));
  const ColumnSumArgs args = {.x = x.const_data_ptr(),
                              .partial = partial.mutable_data_ptr<float>(),
                              .rows = rows,
                              .dim = dim,
                              .blocks = blocks};
  C10_CUDA_CHECK(launch_column_sum(type, args, c10::cuda::getCurrentCUDAStream()));
  return sum_of_parts(partial, asked.value_or(x.scalar_type()));
}

}  // namespace

void register_column_sum(torch::Library& library) {
  library.impl("column_sum", column_sum);
}

}  // namespace fathom::cuda
