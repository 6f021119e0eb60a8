// Any bytes: members that lie within the archive, or an Error, and always an end.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/error.h"
#include "data/readers/tar.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::TarReader reader(std::as_bytes(std::span(data, size)), "fuzz");
  const auto total = static_cast<int64_t>(size);
  // Every call takes a header at least, or says that there is nothing more.
  for (size_t calls = 0; calls <= size / 512 + 2; ++calls) {
    try {
      const auto member = reader.next();
      if (!member) return 0;
      const bool within = member->offset >= 0 && member->bytes >= 0 && member->bytes <= total &&
                          member->offset <= total - member->bytes;
      if (!within || member->name.empty()) std::abort();
    } catch (const fathom::Error& error) {
      if (error.kind() != fathom::ErrorKind::kData) throw;
    }
  }
  std::abort();
}
