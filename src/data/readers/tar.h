// Tar archives: ustar (POSIX.1-1988), pax (POSIX.1-2001) and GNU's long names. This parser is a security
// boundary: nothing in an archive is believed before it is checked, and nothing is allocated for it before
// that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace fathom {

/// A regular file in an archive; its content lies at [offset, offset + bytes), within the archive.
struct TarMember {
  std::string name;  ///< UTF-8
  int64_t offset = 0;
  int64_t bytes = 0;
};

/// Walks over an archive in memory, which must outlive it. Folders are passed over.
class TarReader {
 public:
  /// `source` begins the messages of errors; it may be empty.
  TarReader(std::span<const std::byte> archive, std::string source);

  /// The next file, or nothing at the end. Errors (kData, "SOURCE: byte N: reason"): a header whose checksum
  /// is wrong; sizes that are no numbers or lead beyond the archive; an archive without its end mark (cut
  /// off); a name that is empty, too long or not UTF-8; links, devices and sparse files, after which reading
  /// can go on, as it can after a bad name. After any other error there is nothing more.
  std::optional<TarMember> next();
  /// Whether the end mark has been read: nothing is missing.
  bool is_complete() const { return complete_; }

 private:
  struct Header;
  struct Overrides {
    std::optional<std::string> name;
    std::optional<int64_t> bytes;
  };

  [[noreturn]] void refuse(int64_t place, const std::string& reason) const;
  Header read_header();
  std::string_view content(const Header& header, int64_t most_bytes) const;
  void read_pax(const Header& header, Overrides& overrides) const;
  std::string name_of(const Header& header, const Overrides& overrides) const;

  std::span<const std::byte> archive_;
  std::string source_;
  int64_t place_ = 0;
  bool done_ = false;
  bool complete_ = false;
};

}  // namespace fathom
