// `part_sums.h` for tensors. For files that see LibTorch.
#pragma once

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/element_type_of.h"
#include "cuda/part_sums.h"

namespace fathom::cuda {

/// The sum over the first dimension of `parts`, dense float32, in `type`: a floating type of ours.
inline at::Tensor sum_of_parts(const at::Tensor& parts, at::ScalarType type) {
  auto sum = at::empty(parts.sizes().slice(1), parts.options().dtype(type));
  if (sum.numel() == 0) return sum;
  const PartSumArgs args = {.parts = parts.const_data_ptr<float>(),
                            .sum = sum.mutable_data_ptr(),
                            .count = parts.size(0),
                            .columns = sum.numel()};
  C10_CUDA_CHECK(
      launch_part_sum(element_type_of(sum, "sum_of_parts"), args, c10::cuda::getCurrentCUDAStream()));
  return sum;
}

}  // namespace fathom::cuda
