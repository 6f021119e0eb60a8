// Numbers on their way from the device to the host.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <optional>
#include <vector>

#include "tensor/device_runtime.h"

namespace fathom {

/// A copy of a small tensor that was started and not waited for. Reading it later, when more work has been
/// given to the device, leaves the device no time without work.
class DeferredRead {
 public:
  DeferredRead(const at::Tensor& values, DeviceRuntime& runtime);
  /// Waits until the values of that moment are here.
  std::vector<double> get() const;

 private:
  at::Tensor host_;
  std::optional<c10::Event> arrived_;
};

}  // namespace fathom
