#include "base/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "base/safetensors_header.h"

namespace fathom {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kAlignment = 64;

struct DTypeRow {
  DType dtype;
  const char* name;
  int64_t bytes;
};
constexpr std::array<DTypeRow, 12> kDTypes = {{{DType::kBool, "BOOL", 1},
                                               {DType::kU8, "U8", 1},
                                               {DType::kI8, "I8", 1},
                                               {DType::kI16, "I16", 2},
                                               {DType::kI32, "I32", 4},
                                               {DType::kI64, "I64", 8},
                                               {DType::kF16, "F16", 2},
                                               {DType::kBF16, "BF16", 2},
                                               {DType::kF32, "F32", 4},
                                               {DType::kF64, "F64", 8},
                                               {DType::kF8E4M3, "F8_E4M3", 1},
                                               {DType::kF8E5M2, "F8_E5M2", 1}}};

const DTypeRow& row_of(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype)];
}

/// Every byte of the data belongs to exactly one tensor.
void check_coverage(std::vector<TensorView>& tensors, std::span<const std::byte> data,
                    const std::string& source) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorView& a, const TensorView& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  const std::byte* expected = data.data();
  for (const TensorView& tensor : tensors) {
    if (tensor.bytes.data() != expected)
      fail(ErrorKind::kCheckpoint, "{}: tensor \"{}\" leaves a hole or overlaps another", source,
           tensor.name);
    expected += tensor.bytes.size();
  }
  const auto covered = static_cast<size_t>(expected - data.data());
  if (covered != data.size())
    fail(ErrorKind::kCheckpoint, "{}: {} bytes behind the last tensor", source, data.size() - covered);
}

std::string make_header(const std::vector<TensorView>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) {
    Json& notes = header["__metadata__"];
    for (const auto& [key, value] : metadata) notes[key] = value;
  }
  std::set<std::string> names;
  uint64_t offset = 0;
  for (const TensorView& tensor : tensors) {
    FATHOM_CHECK(names.insert(tensor.name).second, "[safetensors] tensor \"{}\" is given twice", tensor.name);
    Json entry = Json::object();
    entry["dtype"] = dtype_name(tensor.dtype);
    entry["shape"] = Json(Json::Array(tensor.shape.begin(), tensor.shape.end()));
    entry["data_offsets"] = Json(Json::Array{offset, offset + tensor.bytes.size()});
    offset += tensor.bytes.size();
    header.as_object().emplace_back(tensor.name, std::move(entry));
  }
  std::string text = header.dump();
  text.append((kAlignment - (text.size() + kLengthBytes) % kAlignment) % kAlignment, ' ');
  return text;
}

}  // namespace

int64_t dtype_bytes(DType dtype) {
  return row_of(dtype).bytes;
}
const char* dtype_name(DType dtype) {
  return row_of(dtype).name;
}
std::optional<DType> dtype_named(std::string_view name) {
  for (const DTypeRow& row : kDTypes)
    if (name == row.name) return row.dtype;
  return std::nullopt;
}

SafetensorsContent parse_safetensors(std::span<const std::byte> bytes, const std::string& source) {
  uint64_t header_bytes = 0;
  if (bytes.size() < kLengthBytes)
    fail(ErrorKind::kCheckpoint, "{}: too short for a safetensors file", source);
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes)
    fail(ErrorKind::kCheckpoint, "{}: header of {} bytes, at most {} are accepted", source, header_bytes,
         kMaxHeaderBytes);
  if (header_bytes > bytes.size() - kLengthBytes)
    fail(ErrorKind::kCheckpoint, "{}: truncated: header of {} bytes in a file of {}", source, header_bytes,
         bytes.size());

  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, header_bytes);
  const auto data = bytes.subspan(kLengthBytes + header_bytes);
  SafetensorsContent content = read_safetensors_header(text, data, source);
  check_coverage(content.tensors, data, source);
  return content;
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  for (const TensorView& tensor : content_.tensors)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

uint64_t write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                           const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(tensors, metadata);
  const uint64_t header_bytes = header.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header_bytes, 1)));
  file.write(std::as_bytes(std::span(header)));
  for (const TensorView& tensor : tensors) {
    const auto extent = [&] {
      int64_t total = dtype_bytes(tensor.dtype);
      for (const int64_t size : tensor.shape) total *= size;
      return total;
    }();
    FATHOM_CHECK(static_cast<uint64_t>(extent) == tensor.bytes.size(),
                 "[safetensors] \"{}\" needs {} bytes, got {}", tensor.name, extent, tensor.bytes.size());
    file.write(tensor.bytes);
  }
  file.commit();
  return file.checksum();
}

}  // namespace fathom
