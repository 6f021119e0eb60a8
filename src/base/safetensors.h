// safetensors files: a JSON header and raw bytes. This parser is a security boundary: nothing in a file is
// believed before it is checked, and nothing is allocated for it before that. Format:
// https://huggingface.co/docs/safetensors
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace fathom {

enum class DType { kBool, kU8, kI8, kI16, kI32, kI64, kF16, kBF16, kF32, kF64, kF8E4M3, kF8E5M2 };

int64_t dtype_bytes(DType dtype);
const char* dtype_name(DType dtype);  ///< as in the format: "F32", "BF16", …

/// One tensor: a name, a shape and bytes that somebody else owns (row-major, little-endian, maybe unaligned).
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

/// What a safetensors file holds. Views point into the parsed bytes, in the order of their offsets.
struct SafetensorsContent {
  std::vector<TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

/// Parses a whole file's bytes. Errors (kCheckpoint, naming `source` and the tensor): header over 100 MB or
/// beyond the file, not JSON, unknown dtype, negative sizes, sizes that overflow or differ from the offsets,
/// holes, overlaps, trailing bytes, a name given twice, over a million tensors. Memory stays within a small
/// multiple of the header's bytes.
SafetensorsContent parse_safetensors(std::span<const std::byte> bytes, const std::string& source);

/// A memory-mapped safetensors file; views stay valid as long as it lives.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path)
      : file_(path), content_(parse_safetensors(file_.bytes(), path)) {}

  const std::vector<TensorView>& tensors() const { return content_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return content_.metadata; }
  const TensorView* find(std::string_view name) const;

 private:
  MappedFile file_;
  SafetensorsContent content_;
};

/// Writes PATH beside, syncs, renames. Data starts at a multiple of 64 bytes. REQUIRES names without
/// repetition. Returns the checksum (`checksum64`) of the file's bytes.
uint64_t write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                           const std::map<std::string, std::string>& metadata = {});

}  // namespace fathom
