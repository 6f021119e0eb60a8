// The types a run computes in.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <optional>

#include "base/config.h"
#include "kernels/product_type.h"
#include "tensor/device_runtime.h"

namespace fathom {

enum class Precision {
  kFp32,
  kBf16,      ///< parameters, statistics and losses float32; activations and matrix products bfloat16
  kFp16Bf16,  ///< the same, but for operands of matrix products, which are FP16; the loss is scaled
  kFp64,      ///< for comparisons
};

void precision_field(Fields& f, const char* name, Precision& value);
/// Of parameters, gradients and moments.
at::ScalarType parameter_type(Precision precision);
/// For `ForwardContext::compute_dtype`.
std::optional<at::ScalarType> compute_type(Precision precision);
/// Of matrix products.
at::ScalarType product_type(Precision precision);
/// Of the copies of weights that products take; none where parameters are operands as they are, or are cast
/// to FP16, which saturates and is counted.
std::optional<at::ScalarType> copy_type(Precision precision);
/// For `ForwardContext::products`; a count of its own where products have a type of their own.
kernels::Products products_of(Precision precision, at::Device device);
/// Whether the device only imitates these types: a CPU rounds operands to FP16 and multiplies in float32.
bool is_reference(Precision precision, at::Device device);
/// FLOP/s of the device's matrix products, for utilisation figures; 0 when unknown.
double peak_flops(Precision precision, DeviceRuntime& runtime);

}  // namespace fathom
