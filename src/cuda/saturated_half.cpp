// fathom::saturated_half on a GPU: checks and registration.
#include "cuda/saturated_half.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "cuda/saturation_count.h"

namespace fathom::cuda {
namespace {

at::Tensor saturated_half(const at::Tensor& x_in, const std::optional<at::Tensor>& saturated) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  // The ends of float32 lie beyond those of FP16, too.
  const auto x = (x_in.scalar_type() == at::kDouble ? x_in.to(at::kFloat) : x_in).contiguous();
  auto y = at::empty(x.sizes(), x.options().dtype(at::kHalf));
  if (x.numel() == 0) return y;
  const SaturatedHalfArgs args = {.x = x.const_data_ptr(),
                                  .y = y.mutable_data_ptr(),
                                  .saturated = saturation_count(saturated, x, "saturated_half"),
                                  .size = x.numel()};
  C10_CUDA_CHECK(
      launch_saturated_half(element_type_of(x, "saturated_half"), args, c10::cuda::getCurrentCUDAStream()));
  return y;
}

}  // namespace

void register_saturated_half(torch::Library& library) {
  library.impl("saturated_half", saturated_half);
}

}  // namespace fathom::cuda
