// NumPy's file format for one array.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace fathom {

/// Writes a float32 array (format version 1.0) beside, syncs and renames. Errors (kData): path and cause.
void write_npy(const std::string& path, const at::Tensor& values);

}  // namespace fathom
