#include "tensor/side_stream.h"

#include <c10/core/StreamGuard.h>

#include <utility>

#include "base/error.h"
#include "tensor/stream_order.h"

namespace fathom {
namespace {

c10::Stream current_stream(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

}  // namespace

SideStream::SideStream(at::Device device) : device_(device) {
  FATHOM_CHECK(!device.is_cpu(), "[side_stream] expected a device with streams, got {}", device.str());
}

void SideStream::run(const std::function<void()>& work, at::TensorList read) {
  if (!side_) side_ = c10::impl::VirtualGuardImpl(device_.type()).getStreamFromGlobalPool(device_);
  order(current_stream(device_), *side_);
  read_.insert(read_.end(), read.begin(), read.end());
  is_open_ = true;
  const c10::StreamGuard on_side(*side_);
  work();
}

void SideStream::join() {
  if (!is_open_) return;
  order(*side_, current_stream(device_));
  read_.clear();
  former_read_.clear();
  former_.reset();
  is_open_ = false;
}

void SideStream::join_former() {
  if (!is_open_) return;
  if (former_) former_->block(current_stream(device_));
  former_read_ = std::exchange(read_, {});
  former_.emplace(device_.type());
  former_->record(*side_);
}

}  // namespace fathom
