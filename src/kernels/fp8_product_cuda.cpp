// LibTorch's products with scales for blocks (cuBLASLt's, on Hopper), through its operator: no CUDA header.
#include <ATen/BlasBackend.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_scaled_mm_v2.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <torch/library.h>

#include <atomic>
#include <string_view>

#include "base/log.h"
#include "kernels/fp8_tiles.h"

namespace fathom::kernels {
namespace {

/// Where cuBLASLt takes a result to begin, unless it is told otherwise.
constexpr uintptr_t kResultAlignment = 256;

/// Whether LibTorch refused for want of a kernel; anything else is an error like any other.
bool tells_of_no_kernel(const c10::Error& error) {
  return dynamic_cast<const c10::NotImplementedError*>(&error) != nullptr ||
         std::string_view(error.what_without_backtrace()).find("NOT_SUPPORTED") != std::string_view::npos;
}

/// False, and nothing is written: there is no kernel for these. LibTorch says so by throwing, before it
/// launches anything; of E5M2 it has none behind this operator.
bool try_scaled_product(const Fp8Matrix& left, const Fp8Matrix& right, const std::optional<at::Tensor>& bias,
                        at::Tensor& result) {
  if (left.values_RK.scalar_type() != at::kFloat8_e4m3fn ||
      right.values_RK.scalar_type() != at::kFloat8_e4m3fn)
    return false;
  static constexpr int64_t kByRow[] = {static_cast<int64_t>(at::blas::ScalingType::BlockWise1x128)},
                           kByTile[] = {static_cast<int64_t>(at::blas::ScalingType::BlockWise128x128)},
                           kUnswizzled[] = {static_cast<int64_t>(at::blas::SwizzleType::NO_SWIZZLE)};
  const at::Tensor left_scales = left.scales.t(), right_scales = right.scales.t();
  try {
    at::_scaled_mm_v2_outf(left.values_RK, right.values_RK.t(), at::TensorList(&left_scales, 1), kByRow,
                           kUnswizzled, at::TensorList(&right_scales, 1), kByTile, kUnswizzled, bias,
                           result.scalar_type(), /*contraction_dim=*/{}, /*use_fast_accum=*/false, result);
  } catch (const c10::Error& error) {
    if (!tells_of_no_kernel(error)) throw;
    return false;
  }
  return true;
}

/// The same where the bias is added by the product, and where it must be by a pass of its own.
bool try_biased_product(const Fp8Matrix& left, const Fp8Matrix& right, const std::optional<at::Tensor>& bias,
                        at::Tensor& result) {
  if (try_scaled_product(left, right, bias, result)) return true;
  if (!bias || !try_scaled_product(left, right, std::nullopt, result)) return false;
  result.add_(*bias);
  return true;
}

void say_once_that_none_fits(const at::Tensor& left, const at::Tensor& right) {
  static std::atomic<bool> said = false;
  if (!said.exchange(true))
    log::warning(
        "no product of {} [{}, {}] and {} [{}, {}] here: such are computed in BF16, of the same operands",
        c10::toString(left.scalar_type()), left.size(0), left.size(1), c10::toString(right.scalar_type()),
        right.size(0), right.size(1));
}

void product_cuda(const at::Tensor& left, const at::Tensor& left_scales, const at::Tensor& right,
                  const at::Tensor& right_scales, const std::optional<at::Tensor>& bias, at::Tensor& result) {
  const bool begins_well = reinterpret_cast<uintptr_t>(result.const_data_ptr()) % kResultAlignment == 0;
  at::Tensor room = begins_well ? result : at::empty_like(result);
  if (!try_biased_product({left, left_scales}, {right, right_scales}, bias, room)) {
    say_once_that_none_fits(left, right);
    fp8_tiles_ref::product(left, left_scales, right, right_scales, bias, result);
  } else if (!begins_well) {
    result.copy_(room);
  }
}

}  // namespace

bool has_fp8_products(at::Device device) {
  static const auto tiles = c10::Dispatcher::singleton().findSchemaOrThrow("fathom::fp8_tiles", "");
  if (!device.is_cuda() || !tiles.hasKernelForDispatchKey(c10::DispatchKey::CUDA)) return false;
  const auto x = at::ones({kFp8Tile, kFp8Tile}, at::TensorOptions(device).dtype(at::kBFloat16));
  const Fp8Pair pair = fp8_tiles(x, {.plain = TileScales::kByRow, .turned = TileScales::kByTile});
  auto result = at::empty_like(x);
  return try_scaled_product(pair.plain, pair.turned, std::nullopt, result);
}

TORCH_LIBRARY_IMPL(fathom, CUDA, library) {
  library.impl("fp8_product", product_cuda);
}

}  // namespace fathom::kernels
