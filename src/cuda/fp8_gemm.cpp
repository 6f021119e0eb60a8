// fathom::fp8_gemm on a GPU: checks, memory and registration.
#include "cuda/fp8_gemm.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>
#include <optional>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "kernels/fp8_tiles.h"

namespace fathom::cuda {
namespace {

constexpr int64_t kMostElements = std::numeric_limits<int>::max();

bool takes(const at::Tensor& left, const at::Tensor& right, const std::optional<at::Tensor>& bias,
           const at::Tensor& result) {
  const bool is_narrow = result.scalar_type() == at::kBFloat16;
  if (at::cuda::getCurrentDeviceProperties()->major != 9) return false;
  if (right.scalar_type() != at::kFloat8_e4m3fn) return false;
  if (left.scalar_type() != at::kFloat8_e4m3fn && left.scalar_type() != at::kFloat8_e5m2) return false;
  if (!is_narrow && (result.scalar_type() != at::kFloat || bias)) return false;
  if (bias && bias->scalar_type() != at::kBFloat16) return false;
  for (const int64_t size : {left.size(0), right.size(0), left.size(1)})
    if (size == 0 || size % kernels::kFp8Multiple != 0 || size > kMostElements) return false;
  return are_aligned16({left.const_data_ptr(), right.const_data_ptr(), result.const_data_ptr(),
                        bias ? bias->const_data_ptr() : nullptr});
}

/// False, and nothing is written, where the kernel does not take these.
bool fp8_gemm(const at::Tensor& left, const at::Tensor& left_scales, const at::Tensor& right,
              const at::Tensor& right_scales, const std::optional<at::Tensor>& bias_in, at::Tensor& result,
              int64_t blocks_that_share) {
  const c10::cuda::CUDAGuard guard(left.device());
  const auto bias = bias_in ? std::make_optional(bias_in->contiguous()) : std::nullopt;
  if (!takes(left, right, bias, result)) return false;
  const int64_t m = left.size(0), n = right.size(0), k = left.size(1),
                blocks = (k + kernels::kFp8Tile - 1) / kernels::kFp8Tile;
  FATHOM_CHECK(left.is_contiguous() && right.is_contiguous() && left_scales.is_contiguous() &&
                   right_scales.is_contiguous() && left_scales.scalar_type() == at::kFloat &&
                   right_scales.scalar_type() == at::kFloat && left_scales.numel() == blocks * m &&
                   right_scales.dim() == 2 && right_scales.size(1) == (blocks + 3) / 4 * 4 &&
                   right_scales.size(0) == (n + kernels::kFp8Tile - 1) / kernels::kFp8Tile &&
                   (!bias || bias->numel() == n) && blocks_that_share >= 0 && blocks_that_share <= 2,
               "[fp8_gemm] expected dense matrices with scales by row and by tile");
  const Fp8GemmArgs args = {
      .a = left.const_data_ptr(),
      .a_scales = left_scales.const_data_ptr<float>(),
      .a_format = left.scalar_type() == at::kFloat8_e4m3fn ? Fp8Format::kE4M3 : Fp8Format::kE5M2,
      .b = right.const_data_ptr(),
      .b_scales = right_scales.const_data_ptr<float>(),
      .bias = bias ? bias->const_data_ptr() : nullptr,
      .out = result.mutable_data_ptr(),
      .is_narrow = result.scalar_type() == at::kBFloat16,
      .m = static_cast<int>(m),
      .n = static_cast<int>(n),
      .k = static_cast<int>(k)};
  const Fp8GemmPlan plan = plan_fp8_gemm(args, at::cuda::getCurrentDeviceProperties()->multiProcessorCount,
                                         static_cast<int>(blocks_that_share));
  at::Tensor sums, flags;
  if (plan.num_flags() > 0) {
    sums = at::empty({plan.num_sums()}, result.options().dtype(at::kFloat));
    flags = at::zeros({plan.num_flags()}, result.options().dtype(at::kInt));
  }
  C10_CUDA_CHECK(launch_fp8_gemm(
      args, plan, sums.defined() ? sums.mutable_data_ptr<float>() : nullptr,
      flags.defined() ? reinterpret_cast<uint32_t*>(flags.mutable_data_ptr<int32_t>()) : nullptr,
      c10::cuda::getCurrentCUDAStream()));
  return true;
}

}  // namespace

void register_fp8_gemm(torch::Library& library) {
  library.impl("fp8_gemm", fp8_gemm);
}

}  // namespace fathom::cuda
