#include "base/safetensors_header.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace fathom {
namespace {

constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxNotes = 100'000;
constexpr size_t kMaxDims = 64;  ///< what a tensor can have

/// One entry of the header: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}.
struct Entry {
  std::string name;
  std::optional<DType> dtype;
  std::optional<std::vector<int64_t>> shape, offsets;
};

class HeaderReader : public JsonEvents {
 public:
  HeaderReader(std::span<const std::byte> data, const std::string& source) : data_(data), source_(source) {}

  void value(Json value) override {
    switch (place_) {
      case Place::kOutside:
      case Place::kHeader:
        refuse_kind("an object", value.kind_name());
      case Place::kMetadata:
        return add_note(value);
      case Place::kTensor:
        return set_scalar(value);
      case Place::kShape:
        return add_number(*entry_.shape, value, kMaxDims);
      case Place::kOffsets:
        return add_number(*entry_.offsets, value, 2);
      case Place::kSkipped:
        return;
    }
  }
  void key(std::string name) override {
    if (place_ == Place::kHeader)
      entry_ = {.name = std::move(name)};
    else if (place_ != Place::kSkipped)
      key_ = std::move(name);
  }
  void open_object() override {
    if (place_ == Place::kOutside)
      place_ = Place::kHeader;
    else if (place_ == Place::kHeader && entry_.name == "__metadata__")
      begin_notes();
    else if (place_ == Place::kHeader)
      place_ = Place::kTensor;
    else
      skip("object");
  }
  void open_array() override {
    if (place_ == Place::kTensor && key_ == "shape")
      begin_list(entry_.shape, Place::kShape);
    else if (place_ == Place::kTensor && key_ == "data_offsets")
      begin_list(entry_.offsets, Place::kOffsets);
    else
      skip("array");
  }
  void close() override {
    switch (place_) {
      case Place::kSkipped:
        if (--skipped_ == 0) place_ = Place::kTensor;
        return;
      case Place::kShape:
      case Place::kOffsets:
        place_ = Place::kTensor;
        return;
      case Place::kTensor:
        add_tensor();
        place_ = Place::kHeader;
        return;
      default:
        place_ = Place::kHeader;
    }
  }

  SafetensorsContent take() {
    refuse_repetition();
    return std::move(content_);
  }

 private:
  enum class Place { kOutside, kHeader, kMetadata, kTensor, kShape, kOffsets, kSkipped };

  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    constexpr size_t kMostShown = 200;
    const std::string name = entry_.name.substr(0, kMostShown) + (entry_.name.size() > kMostShown ? "…" : "");
    fail(ErrorKind::kCheckpoint, "{}: {}: {}", source_,
         name.empty() ? "header" : fmt::format("tensor \"{}\"", name),
         fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void refuse_kind(const char* expected, const char* found) const {
    refuse("expected {}, got {}", expected, found);
  }

  void begin_notes() {
    if (std::exchange(has_notes_, true)) refuse("given twice");
    place_ = Place::kMetadata;
  }
  void add_note(const Json& value) {
    if (!value.is_string()) refuse_kind("a string", value.kind_name());
    if (content_.metadata.size() == kMaxNotes) refuse("more than {} notes", kMaxNotes);
    content_.metadata[std::move(key_)] = value.as_string();
  }
  void set_scalar(const Json& value) {
    if (key_ == "shape" || key_ == "data_offsets") refuse_kind("an array", value.kind_name());
    if (key_ != "dtype") return;
    if (!value.is_string()) refuse_kind("a string", value.kind_name());
    entry_.dtype = dtype_named(value.as_string());
    if (!entry_.dtype) refuse("unknown dtype \"{}\"", value.as_string().substr(0, 20));
  }
  void add_number(std::vector<int64_t>& list, const Json& value, size_t most) {
    if (!value.is_int()) refuse_kind("an integer", value.kind_name());
    if (list.size() == most) refuse("more than {} numbers in its {}", most, key_);
    list.push_back(value.as_int());
  }
  void begin_list(std::optional<std::vector<int64_t>>& list, Place place) {
    if (list) refuse("its {} is given twice", key_);
    list.emplace();
    place_ = place;
  }
  /// What a later version of the format may say of a tensor is passed over; elsewhere it is an error.
  void skip(const char* found) {
    if (place_ == Place::kOutside || place_ == Place::kHeader) refuse_kind("an object", found);
    if (place_ == Place::kMetadata) refuse_kind("a string", found);
    if (place_ == Place::kShape || place_ == Place::kOffsets) refuse_kind("an integer", found);
    if (place_ == Place::kTensor && key_ == "dtype") refuse_kind("a string", found);
    if (place_ == Place::kTensor && (key_ == "shape" || key_ == "data_offsets"))
      refuse_kind("an array", found);
    place_ = Place::kSkipped;
    ++skipped_;
  }

  int64_t num_bytes() const {
    int64_t bytes = dtype_bytes(*entry_.dtype);
    for (const int64_t extent : *entry_.shape) {
      if (extent < 0) refuse("negative size {} in its shape", extent);
      if (__builtin_mul_overflow(bytes, extent, &bytes)) refuse("its shape overflows 64 bits");
    }
    return bytes;
  }
  void add_tensor() {
    if (!entry_.dtype) refuse("missing key \"dtype\"");
    if (!entry_.shape) refuse("missing key \"shape\"");
    if (!entry_.offsets) refuse("missing key \"data_offsets\"");
    if (entry_.offsets->size() != 2) refuse("expected two data_offsets, got {}", entry_.offsets->size());
    if (content_.tensors.size() == kMaxTensors) refuse("more than {} tensors", kMaxTensors);
    const int64_t begin = (*entry_.offsets)[0], end = (*entry_.offsets)[1], bytes = num_bytes();
    if (begin < 0 || end < begin || static_cast<uint64_t>(end) > data_.size())
      refuse("offsets {} to {} do not lie in the {} bytes of data", begin, end, data_.size());
    if (end - begin != bytes) refuse("its shape needs {} bytes, its offsets span {}", bytes, end - begin);
    content_.tensors.push_back({std::move(entry_.name), *entry_.dtype, std::move(*entry_.shape),
                                data_.subspan(static_cast<size_t>(begin), static_cast<size_t>(bytes))});
  }
  void refuse_repetition() {
    std::vector<std::string_view> names;
    names.reserve(content_.tensors.size());
    for (const TensorView& tensor : content_.tensors) names.push_back(tensor.name);
    std::sort(names.begin(), names.end());
    const auto repeated = std::adjacent_find(names.begin(), names.end());
    if (repeated == names.end()) return;
    entry_.name = *repeated;
    refuse("given twice");
  }

  std::span<const std::byte> data_;
  const std::string& source_;
  SafetensorsContent content_;
  Place place_ = Place::kOutside;
  Entry entry_;
  bool has_notes_ = false;
  std::string key_;  ///< within an entry
  int skipped_ = 0;  ///< levels below the tensor's
};

}  // namespace

SafetensorsContent read_safetensors_header(std::string_view text, std::span<const std::byte> data,
                                           const std::string& source) {
  HeaderReader reader(data, source);
  with_error_kind(ErrorKind::kCheckpoint, [&] { walk_json(text, source + ": header", reader); });
  return reader.take();
}

}  // namespace fathom
