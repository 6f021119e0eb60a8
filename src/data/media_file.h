// Where the bytes of a picture or recording lie: a file of its own, or a part of an archive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/file.h"

namespace fathom {

/// The path of a part of an archive, "ARCHIVE!OFFSET+BYTES!NAME": usable wherever a record's `image_path` and
/// `audio_path` are. `name` is for people.
std::string archive_part(const std::string& archive, int64_t offset, int64_t bytes, const std::string& name);

/// The bytes of a file, or of a part of an archive. Errors (kData): missing, unreadable, an archive that ends
/// before the part does (nothing is allocated for it then).
std::string read_media(const std::string& path);

/// The same bytes mapped read-only: what nobody looks at is not read. Errors (kData) as `read_media`.
class MappedMedia {
 public:
  explicit MappedMedia(const std::string& path);
  std::span<const std::byte> bytes() const { return file_.bytes().subspan(offset_, size_); }

 private:
  MappedFile file_;
  size_t offset_ = 0;
  size_t size_ = 0;
};

/// Whether the file, or the archive that a part belongs to, is there.
bool media_exists(const std::string& path);

}  // namespace fathom
