// x + scale · branch by LibTorch's operations: for references. Header only, since the plug-in links no object
// of ours.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>

#include <optional>
#include <vector>

namespace fathom::kernels {

/// [B] as [B, 1, ...], for what has as many dimensions as `x`.
inline at::Tensor by_sample(const at::Tensor& scale_B, const at::Tensor& x) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = scale_B.size(0);
  return scale_B.view(shape);
}

inline at::Tensor scaled_sum(const at::Tensor& x, const at::Tensor& branch,
                             const std::optional<at::Tensor>& scale_B) {
  return scale_B ? at::addcmul(x, branch, by_sample(*scale_B, x)) : at::add(x, branch);
}

}  // namespace fathom::kernels
