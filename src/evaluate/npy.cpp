#include "evaluate/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>

#include "base/file.h"

namespace fathom {

void write_npy(const std::string& path, const at::Tensor& values) {
  const auto array = values.detach().to(at::kCPU, at::kFloat).contiguous();
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}",
                                   fmt::join(array.sizes(), ", "));
  // Magic, version and length take 10 bytes; the data begins at a multiple of 64, after a line end.
  constexpr size_t kPrefix = 10, kAlignment = 64;
  header.append((kAlignment - (kPrefix + header.size() + 1) % kAlignment) % kAlignment, ' ');
  header += '\n';
  std::string start("\x93NUMPY\x01\x00", 8);
  start += static_cast<char>(header.size() & 0xFF);
  start += static_cast<char>(header.size() >> 8);
  start += header;
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(start)));
  file.write({static_cast<const std::byte*>(array.const_data_ptr()), array.nbytes()});
  file.commit();
}

}  // namespace fathom
