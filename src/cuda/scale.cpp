// fathom::scale_ on a GPU: checks and registration.
#include "cuda/scale.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

void scale(const at::Tensor& x, const at::Tensor& factor) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ElementType type = element_type_of(x, "scale");
  FATHOM_CHECK(x.is_non_overlapping_and_dense() && factor.device() == x.device() &&
                   factor.scalar_type() == (type == ElementType::kDouble ? at::kDouble : at::kFloat),
               "[scale] expected a dense tensor and a wide factor on {}", x.device().str());
  if (x.numel() == 0) return;
  const ScaleArgs args = {.x = x.mutable_data_ptr(), .factor = factor.const_data_ptr(), .size = x.numel()};
  C10_CUDA_CHECK(launch_scale(type, args, c10::cuda::getCurrentCUDAStream()));
}

}  // namespace

void register_scale(torch::Library& library) {
  library.impl("scale_", scale);
}

}  // namespace fathom::cuda
