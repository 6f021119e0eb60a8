#include "train/precision.h"

#include <torch/torch.h>

namespace fathom {

void precision_field(Fields& f, const char* name, Precision& value) {
  f.choice(
      name, value,
      "type of activations and matrix products; parameters stay float32 under bf16; under fp16_bf16, where "
      "products take operands in FP16, all else is as under bf16, and the loss is scaled; and under fp8, "
      "where large linear layers of blocks take operands in FP8 (a Hopper GPU; elsewhere they stay BF16)",
      {{"fp32", Precision::kFp32},
       {"bf16", Precision::kBf16},
       {"fp16_bf16", Precision::kFp16Bf16},
       {"fp8", Precision::kFp8},
       {"fp64", Precision::kFp64}});
}

at::ScalarType parameter_type(Precision precision) {
  return precision == Precision::kFp64 ? at::kDouble : at::kFloat;
}

std::optional<at::ScalarType> compute_type(Precision precision) {
  if (precision == Precision::kFp32 || precision == Precision::kFp64) return std::nullopt;
  return at::kBFloat16;
}

at::ScalarType product_type(Precision precision) {
  if (precision == Precision::kFp16Bf16) return at::kHalf;
  return compute_type(precision).value_or(parameter_type(precision));
}

std::optional<at::ScalarType> copy_type(Precision precision) {
  if (precision == Precision::kFp16Bf16) return at::kHalf;
  return compute_type(precision);
}

kernels::Products products_of(Precision precision, at::Device device) {
  if (precision != Precision::kFp16Bf16) return {};
  return {.type = at::kHalf, .saturated = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device))};
}

void Fp8Config::fields(Fields& f) {
  f.choice("gradients", gradients,
           "type of gradients under precision fp8: with a scale for each tile E4M3 has range enough and a "
           "digit more; products of e5m2 are computed in BF16, of the same numbers, to compare with",
           {{"e4m3", Fp8Gradients::kE4M3}, {"e5m2", Fp8Gradients::kE5M2}});
  f("least_intensity", least_intensity,
    "products with fewer multiply-adds for each number of their three matrices stay in BF16, where turning "
    "operands into FP8 costs more than it saves",
    {.low = 0});
}

std::optional<kernels::Fp8Products> fp8_products_of(Precision precision, const Fp8Config& config,
                                                    at::Device device) {
  if (precision != Precision::kFp8 || !(device.is_cpu() || kernels::has_fp8_products(device)))
    return std::nullopt;
  return kernels::Fp8Products{
      .gradients = config.gradients == Fp8Gradients::kE4M3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2,
      .least_intensity = config.least_intensity,
      .beyond = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device))};
}

bool is_reference(Precision precision, at::Device device) {
  return (precision == Precision::kFp16Bf16 || precision == Precision::kFp8) && device.is_cpu();
}

double peak_flops(Precision precision, DeviceRuntime& runtime) {
  return runtime.peak_flops(is_reference(precision, runtime.device()) ? at::kFloat : product_type(precision));
}

}  // namespace fathom
