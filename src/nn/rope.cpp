#include "nn/rope.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace fathom {

RopeAngles Rope::angles(int64_t start, int64_t count, at::Device device) {
  if (start + count > max_positions_)
    fail(ErrorKind::kRequest, "the model knows {} positions, the sequence has {}", max_positions_,
         start + count);
  if (!table_.cos_TF.defined() || table_.cos_TF.device() != device) {
    const auto options = at::TensorOptions().dtype(at::kFloat);
    const auto exponent = at::arange(0, head_dim_, 2, options.dtype(at::kLong)).to(at::kFloat).div(head_dim_);
    const auto frequency = at::pow(theta_, exponent).reciprocal();
    const auto angle = at::outer(at::arange(max_positions_, options), frequency);
    table_ = {angle.cos().to(device), angle.sin().to(device)};
  }
  return {table_.cos_TF.narrow(0, start, count), table_.sin_TF.narrow(0, start, count)};
}

}  // namespace fathom
