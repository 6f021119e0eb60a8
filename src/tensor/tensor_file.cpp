#include "tensor/tensor_file.h"

#include <ATen/ops/empty.h>

#include <array>
#include <cstring>

#include "base/error.h"

namespace fathom {
namespace {

constexpr std::array<std::pair<DType, at::ScalarType>, 12> kTypes = {{{DType::kBool, at::kBool},
                                                                      {DType::kU8, at::kByte},
                                                                      {DType::kI8, at::kChar},
                                                                      {DType::kI16, at::kShort},
                                                                      {DType::kI32, at::kInt},
                                                                      {DType::kI64, at::kLong},
                                                                      {DType::kF16, at::kHalf},
                                                                      {DType::kBF16, at::kBFloat16},
                                                                      {DType::kF32, at::kFloat},
                                                                      {DType::kF64, at::kDouble},
                                                                      {DType::kF8E4M3, at::kFloat8_e4m3fn},
                                                                      {DType::kF8E5M2, at::kFloat8_e5m2}}};

}  // namespace

at::ScalarType to_scalar_type(DType dtype) {
  return kTypes[static_cast<size_t>(dtype)].second;
}

DType to_dtype(at::ScalarType type) {
  for (const auto& [dtype, scalar_type] : kTypes)
    if (scalar_type == type) return dtype;
  fail(ErrorKind::kInternal, "[tensor_file] safetensors cannot hold {}", c10::toString(type));
}

at::Tensor to_tensor(const TensorView& view) {
  at::Tensor tensor = at::empty(view.shape, at::TensorOptions().dtype(to_scalar_type(view.dtype)));
  if (!view.bytes.empty()) std::memcpy(tensor.data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

TensorMap load_tensors(const std::string& path) {
  const SafetensorsFile file(path);
  TensorMap tensors;
  for (const TensorView& view : file.tensors()) tensors.emplace(view.name, to_tensor(view));
  return tensors;
}

uint64_t save_tensors(const std::string& path, const TensorMap& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> kept;  // keeps contiguous CPU copies alive while their bytes are written
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    kept.push_back(tensor.detach().cpu().contiguous());
    const at::Tensor& value = kept.back();
    views.push_back({.name = name,
                     .dtype = to_dtype(value.scalar_type()),
                     .shape = value.sizes().vec(),
                     .bytes = {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()}});
  }
  return write_safetensors(path, views, metadata);
}

}  // namespace fathom
