#include "train/precision.h"

#include <torch/torch.h>

namespace fathom {

void precision_field(Fields& f, const char* name, Precision& value) {
  f.choice(
      name, value,
      "type of activations and matrix products; parameters stay float32 under bf16, and under fp16_bf16, "
      "where products take operands in FP16, all else is as under bf16, and the loss is scaled",
      {{"fp32", Precision::kFp32},
       {"bf16", Precision::kBf16},
       {"fp16_bf16", Precision::kFp16Bf16},
       {"fp64", Precision::kFp64}});
}

at::ScalarType parameter_type(Precision precision) {
  return precision == Precision::kFp64 ? at::kDouble : at::kFloat;
}

std::optional<at::ScalarType> compute_type(Precision precision) {
  if (precision == Precision::kBf16 || precision == Precision::kFp16Bf16) return at::kBFloat16;
  return std::nullopt;
}

at::ScalarType product_type(Precision precision) {
  if (precision == Precision::kFp16Bf16) return at::kHalf;
  return compute_type(precision).value_or(parameter_type(precision));
}

std::optional<at::ScalarType> copy_type(Precision precision) {
  return precision == Precision::kBf16 ? std::make_optional(at::kBFloat16) : std::nullopt;
}

kernels::Products products_of(Precision precision, at::Device device) {
  if (precision != Precision::kFp16Bf16) return {};
  return {.type = at::kHalf, .saturated = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device))};
}

bool is_reference(Precision precision, at::Device device) {
  return precision == Precision::kFp16Bf16 && device.is_cpu();
}

double peak_flops(Precision precision, DeviceRuntime& runtime) {
  return runtime.peak_flops(is_reference(precision, runtime.device()) ? at::kFloat : product_type(precision));
}

}  // namespace fathom
