// The types a run computes in.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>

#include "base/config.h"

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
/// Of matrix products, for utilisation figures.
at::ScalarType product_type(Precision precision);

}  // namespace fathom
