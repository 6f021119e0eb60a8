// safetensors ↔ at::Tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/safetensors.h"

namespace fathom {

using TensorMap = std::map<std::string, at::Tensor>;

at::ScalarType to_scalar_type(DType dtype);
/// Errors (kInternal): a dtype the format lacks (complex, quantized).
DType to_dtype(at::ScalarType type);

/// Copies a view into a new CPU tensor.
at::Tensor to_tensor(const TensorView& view);

/// Every tensor of a file, on the CPU. Errors: kCheckpoint (see parse_safetensors), kData (file missing).
TensorMap load_tensors(const std::string& path);

/// Writes tensors (any device; made contiguous on the CPU) beside, syncs and renames; returns the file's
/// checksum.
uint64_t save_tensors(const std::string& path, const TensorMap& tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace fathom
