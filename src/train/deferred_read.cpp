#include "train/deferred_read.h"

#include <torch/torch.h>

namespace fathom {

DeferredRead::DeferredRead(const at::Tensor& values, DeviceRuntime& runtime) {
  const at::Tensor flat = values.detach().reshape(-1);
  if (flat.is_cpu()) {
    host_ = flat.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
    return;
  }
  host_ = runtime.pinned_empty(flat.sizes(), flat.scalar_type());
  host_.copy_(flat, /*non_blocking=*/true);
  arrived_.emplace(flat.device().type());
  arrived_->record(c10::impl::VirtualGuardImpl(flat.device().type()).getStream(flat.device()));
}

std::vector<double> DeferredRead::get() const {
  if (arrived_) arrived_->synchronize();
  const at::Tensor values = host_.to(at::kDouble);
  const double* data = values.const_data_ptr<double>();
  return {data, data + values.numel()};
}

}  // namespace fathom
