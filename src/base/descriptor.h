// A file descriptor with an owner.
#pragma once

#include <unistd.h>

#include <utility>

namespace fathom {

/// Closes what it holds at the end of its life. Move-only; -1 stands for none.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  void reset() {
    if (ok()) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

}  // namespace fathom
