// Files: read whole, map read-only, and write so that a crash leaves either the old or the new content.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace fathom {

/// Reads a whole file. Errors (kData): missing, a directory, unreadable, or larger than `max_bytes`.
std::string read_file(const std::string& path, uint64_t max_bytes = UINT64_MAX);

/// Absolute and lexically normal, without a slash at its end: paths to one file are equal, links apart.
std::string absolute_path(const std::string& path);

/// A checksum against torn or mixed-up files, not against malice: 64-bit FNV-1a over 8-byte words. Feeding a
/// stream in any pieces gives the same value.
class Checksum {
 public:
  void update(std::span<const std::byte> bytes);
  uint64_t value() const;

 private:
  uint64_t state_ = 0xcbf29ce484222325;
  uint64_t tail_ = 0;  ///< the bytes of an unfinished word
  int tail_bytes_ = 0;
};
uint64_t checksum64(std::span<const std::byte> bytes);

/// A file that appears whole or not at all: written to PATH.tmp, and put in place by `commit`, which syncs
/// it, renames it and syncs the folder. Destroyed before `commit`, it leaves the old content. Errors (kData)
/// name path and cause.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void commit();
  uint64_t checksum() const { return checksum_.value(); }  ///< of all that was written

 private:
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  Checksum checksum_;
};

/// Writes to PATH.tmp, syncs it, renames it over PATH and syncs the folder. Errors (kData) name the path and
/// the cause (no space left, no permission); the old content stays.
void write_file_atomically(const std::string& path, std::string_view content);

/// Flushes a file's or a folder's content to the disk.
void sync_path(const std::string& path);

/// A file mapped read-only. Move-only; the mapping ends with the object. Safe to read from many threads.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  std::string_view text() const { return {static_cast<const char*>(data_), size_}; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace fathom
