#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/descriptor.h"
#include "base/error.h"

namespace fathom {
namespace {

[[noreturn]] void fail_system(const std::string& path, const char* action) {
  fail(ErrorKind::kData, "{}: cannot {}: {}", path, action, std::strerror(errno));
}

Descriptor open_file(const std::string& path, int flags) {
  return Descriptor(::open(path.c_str(), flags | O_CLOEXEC));
}

/// Opening a pipe must not wait for its writer: it is refused like everything that is no regular file.
constexpr int kReading = O_RDONLY | O_NONBLOCK;

uint64_t regular_size(const Descriptor& file, const std::string& path) {
  struct stat status {};
  if (!file.ok() || ::fstat(file.get(), &status) != 0) fail_system(path, "open");
  if (!S_ISREG(status.st_mode)) fail(ErrorKind::kData, "{}: not a regular file", path);
  return static_cast<uint64_t>(status.st_size);
}

}  // namespace

std::string read_file(const std::string& path, uint64_t max_bytes) {
  const Descriptor file = open_file(path, kReading);
  const uint64_t size = regular_size(file, path);
  if (size > max_bytes)
    fail(ErrorKind::kData, "{}: {} bytes, at most {} are accepted", path, size, max_bytes);
  std::string content(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t count = ::read(file.get(), content.data() + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system(path, "read");
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  content.resize(done);
  return content;
}

std::string absolute_path(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::absolute(path).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).string();
}

void sync_path(const std::string& path) {
  const Descriptor file = open_file(path, O_RDONLY);
  if (!file.ok() || ::fsync(file.get()) != 0) fail_system(path, "sync");
}

void Checksum::update(std::span<const std::byte> bytes) {
  constexpr uint64_t kPrime = 0x100000001b3;
  const auto mix = [&](uint64_t word) {
    state_ = (state_ ^ word) * kPrime;
    state_ ^= state_ >> 32;
  };
  size_t i = 0;
  while (i < bytes.size()) {
    if (tail_bytes_ == 0 && i + 8 <= bytes.size()) {
      uint64_t word;
      std::memcpy(&word, bytes.data() + i, 8);
      mix(word);
      i += 8;
      continue;
    }
    tail_ |= static_cast<uint64_t>(bytes[i++]) << (8 * tail_bytes_);
    if (++tail_bytes_ == 8) {
      mix(tail_);
      tail_ = 0;
      tail_bytes_ = 0;
    }
  }
}

uint64_t Checksum::value() const {
  return (state_ ^ tail_ ^ (static_cast<uint64_t>(tail_bytes_) << 60)) * 0x9E3779B97F4A7C15;
}

uint64_t checksum64(std::span<const std::byte> bytes) {
  Checksum checksum;
  checksum.update(bytes);
  return checksum.value();
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_system(temporary_, "create");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  checksum_.update(bytes);
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system(path_, "write");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail_system(path_, "sync");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_system(path_, "rename");
  ::close(std::exchange(fd_, -1));
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  sync_path(folder.empty() ? "." : folder);
}

void write_file_atomically(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(content)));
  file.commit();
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor file = open_file(path, kReading);
  size_ = regular_size(file, path);
  if (size_ == 0) return;
  data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    fail_system(path, "map");
  }
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace fathom
