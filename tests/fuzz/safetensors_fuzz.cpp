// Any bytes are either refused with an `Error` or give tensors that lie inside them.
#include <cstdlib>

#include "base/error.h"
#include "base/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    for (const fathom::TensorView& tensor : fathom::parse_safetensors(bytes, "fuzz").tensors) {
      if (tensor.bytes.data() < bytes.data() ||
          tensor.bytes.data() + tensor.bytes.size() > bytes.data() + size)
        std::abort();
      int64_t expected = fathom::dtype_bytes(tensor.dtype);
      for (const int64_t extent : tensor.shape) expected *= extent;
      if (static_cast<size_t>(expected) != tensor.bytes.size()) std::abort();
    }
  } catch (const fathom::Error&) {
  }
  return 0;
}
