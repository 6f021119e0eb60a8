#include "train/precision.h"

namespace fathom {

void precision_field(Fields& f, const char* name, Precision& value) {
  f.choice(name, value, "type of activations and matrix products; parameters stay float32 under bf16",
           {{"fp32", Precision::kFp32}, {"bf16", Precision::kBf16}, {"fp64", Precision::kFp64}});
}

at::ScalarType parameter_type(Precision precision) {
  return precision == Precision::kFp64 ? at::kDouble : at::kFloat;
}

std::optional<at::ScalarType> compute_type(Precision precision) {
  if (precision == Precision::kBf16) return at::kBFloat16;
  return std::nullopt;
}

at::ScalarType product_type(Precision precision) {
  return compute_type(precision).value_or(parameter_type(precision));
}

}  // namespace fathom
