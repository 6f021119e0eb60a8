// The types a run computes in.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <optional>

#include "base/config.h"
#include "kernels/fp8_linear.h"
#include "kernels/product_type.h"
#include "tensor/device_runtime.h"

namespace fathom {

enum class Precision {
  kFp32,
  kBf16,      ///< parameters, statistics and losses float32; activations and matrix products bfloat16
  kFp16Bf16,  ///< the same, but for operands of matrix products, which are FP16; the loss is scaled
  kFp8,       ///< as under bf16, but for operands of large products in blocks, which are FP8
  kFp64,      ///< for comparisons
};

/// Rounding decides, not range, where each tile has a scale: E4M3 for gradients too (DeepSeek-V3, 2024,
/// section 3.3.2).
enum class Fp8Gradients { kE4M3, kE5M2 };

struct Fp8Config {
  Fp8Gradients gradients = Fp8Gradients::kE4M3;
  double least_intensity = 512;

  void fields(Fields& f);
};

void precision_field(Fields& f, const char* name, Precision& value);
/// Of parameters, gradients and moments.
at::ScalarType parameter_type(Precision precision);
/// For `ForwardContext::compute_dtype`.
std::optional<at::ScalarType> compute_type(Precision precision);
/// Of matrix products; under `kFp8` of those that are not FP8.
at::ScalarType product_type(Precision precision);
/// Of the copies of weights that products take; none where parameters are operands as they are.
std::optional<at::ScalarType> copy_type(Precision precision);
/// For `ForwardContext::products`; a count of its own where products have a type of their own.
kernels::Products products_of(Precision precision, at::Device device);
/// For `ForwardContext::fp8`; none where the precision is another, or a GPU has no such products.
std::optional<kernels::Fp8Products> fp8_products_of(Precision precision, const Fp8Config& config,
                                                    at::Device device);
/// Whether the device only imitates these types: a CPU rounds operands to FP16 or FP8 and multiplies in
/// float32.
bool is_reference(Precision precision, at::Device device);
/// FLOP/s of the device's matrix products, for utilisation figures; 0 when unknown.
double peak_flops(Precision precision, DeviceRuntime& runtime);

}  // namespace fathom
