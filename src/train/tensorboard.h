// TensorBoard event files: TFRecords of hand-encoded protocol buffers.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace fathom {

/// CRC-32C (Castagnoli), as TFRecord and iSCSI (RFC 3720) use it.
uint32_t crc32c(std::string_view bytes);

/// Writes RUN/events.out.tfevents.TIME.PROCESS. TensorBoard reads all event files of a folder as one run; a
/// file that begins at a later step makes it forget what former files say from there on.
class EventWriter {
 public:
  using Scalars = std::vector<std::pair<std::string, double>>;

  /// `first_step` is where a resumed run goes on. Errors (kData): the file cannot be made.
  EventWriter(const std::string& folder, int64_t first_step);

  /// Points (step, value) of several curves at one time. Errors (kData): a full disk.
  void write(int64_t step, const Scalars& scalars);
  void flush();

 private:
  void append(const std::string& event);

  std::string path_;
  std::ofstream file_;
};

}  // namespace fathom
