// fathom::half_product on a GPU: checks and registration. What the kernels do not take goes through the
// operations that it stands for.
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>

#include "cuda/counted_product.h"
#include "cuda/element_type_of.h"
#include "cuda/half_gemm.h"
#include "cuda/registration.h"
#include "cuda/saturation_count.h"
#include "kernels/half_product_parts.h"

namespace fathom::cuda {
namespace {

/// Sizes and cards that the kernels take: those of products with counted rows.
bool fits(const at::Tensor& a, const at::Tensor& b, at::ScalarType type) {
  return (type == at::kBFloat16 || type == at::kHalf) && at::cuda::getCurrentDeviceProperties()->major == 9 &&
         counted_product_fits(ElementType::kHalf, a.size(0), a.size(1), b.size(1));
}

at::Tensor half_product(const at::Tensor& a_in, const at::Tensor& b_in,
                        const std::optional<at::Tensor>& bias_in, at::ScalarType type, bool saturates,
                        const std::optional<at::Tensor>& saturated) {
  const c10::cuda::CUDAGuard guard(a_in.device());
  FATHOM_CHECK(a_in.dim() == 2 && b_in.dim() == 2 && a_in.size(1) == b_in.size(0) &&
                   a_in.scalar_type() == at::kHalf && b_in.scalar_type() == at::kHalf &&
                   b_in.device() == a_in.device() &&
                   (!bias_in || (bias_in->numel() == b_in.size(1) && bias_in->device() == a_in.device())),
               "[half_product] expected matrices in FP16 that fit on {}", a_in.device().str());
  if (a_in.size(0) == 0) return at::empty({0, b_in.size(1)}, a_in.options().dtype(type));
  if (!fits(a_in, b_in, type))
    return kernels::half_product_parts::apply(a_in, b_in, bias_in, type, saturates, saturated);
  const bool is_turned = b_in.t().is_contiguous();
  const at::Tensor a = aligned16(a_in), b = aligned16(is_turned ? b_in.t() : b_in),
                   bias = bias_in ? aligned16(bias_in->to(at::kFloat)) : at::Tensor();
  auto out = at::empty({a.size(0), b_in.size(1)}, a.options().dtype(type));
  const HalfGemmArgs args = {.a = a.const_data_ptr(),
                             .b = b.const_data_ptr(),
                             .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                             .out = out.mutable_data_ptr(),
                             .rows = a.size(0),
                             .columns = b_in.size(1),
                             .reduced = a.size(1),
                             .is_turned = is_turned,
                             .saturates = saturates,
                             .saturated = saturation_count(saturated, a, "half_product")};
  const auto stream = c10::cuda::getCurrentCUDAStream();
  C10_CUDA_CHECK(type == at::kHalf ? half_gemm_to_half(args, stream) : half_gemm_to_bfloat16(args, stream));
  return out;
}

}  // namespace

void register_half_product(torch::Library& library) {
  library.impl("half_product", half_product);
}

}  // namespace fathom::cuda
