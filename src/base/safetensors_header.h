// The JSON header of a safetensors file; for safetensors.cpp.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/safetensors.h"

namespace fathom {

/// Reads the header `text` of `source`, whose tensors lie in `data`, as it comes: memory grows with the
/// number of tensors, which is limited, and never with what a hostile header holds beside them. Errors
/// (kCheckpoint): not JSON, another form, unknown types, sizes that overflow or differ from the offsets,
/// offsets outside the data, a name given twice.
SafetensorsContent read_safetensors_header(std::string_view text, std::span<const std::byte> data,
                                           const std::string& source);

std::optional<DType> dtype_named(std::string_view name);

}  // namespace fathom
