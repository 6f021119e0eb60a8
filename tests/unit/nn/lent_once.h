// Rooms for gradients, for tests of who writes into them.
#pragma once

#include <ATen/ops/full_like.h>

#include <map>

#include "tensor/gradient_rooms.h"

namespace fathom::testing {

/// Lends a place to every parameter once.
class LentOnce : public GradientRooms {
 public:
  explicit LentOnce(SideStream* side = nullptr) : side_(side) {}
  at::Tensor take(const at::Tensor& parameter) override {
    at::Tensor& room = rooms_[parameter.unsafeGetTensorImpl()];
    if (room.defined()) return {};
    room = at::full_like(parameter.detach(), 7);
    return room.view(room.sizes());
  }
  SideStream* side() override { return side_; }
  size_t count() const { return rooms_.size(); }
  const void* place_of(const at::Tensor& parameter) {
    return rooms_[parameter.unsafeGetTensorImpl()].data_ptr();
  }

 private:
  SideStream* side_;
  std::map<const at::TensorImpl*, at::Tensor> rooms_;
};

}  // namespace fathom::testing
