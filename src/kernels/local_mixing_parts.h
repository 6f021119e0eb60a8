// `local_mixing` by LibTorch's convolution: what runs where no kernel takes it. Header only, since the
// plug-in links no object of ours.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>

#include <array>
#include <tuple>

namespace fathom::kernels::local_mixing_parts {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Forward = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
using Backward = Three(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& bias);

/// [B, H, W, D] as convolutions see it.
inline at::Tensor planes(const at::Tensor& map, at::ScalarType type) {
  return map.to(type).permute({0, 3, 1, 2});
}

/// `type`: in which is multiplied.
inline at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          at::ScalarType type) {
  const auto mixed = at::conv2d(planes(x, type), weight.to(type), bias.to(type), /*stride=*/1,
                                weight.size(2) / 2, /*dilation=*/1, /*groups=*/x.size(3));
  return at::add(x, mixed.permute({0, 2, 3, 1}).to(x.scalar_type()));
}

/// Gradients of x, weight and bias, each of its type.
inline Three backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                      const at::Tensor& bias, at::ScalarType type) {
  const int64_t side = weight.size(2);
  const auto [grad_x, grad_weight, grad_bias] = at::convolution_backward(
      planes(grad, type), planes(x, type), weight.to(type), /*bias_sizes=*/bias.sizes(), /*stride=*/{1, 1},
      /*padding=*/{side / 2, side / 2}, /*dilation=*/{1, 1}, /*transposed=*/false, /*output_padding=*/{0, 0},
      /*groups=*/x.size(3), std::array<bool, 3>{true, true, true});
  return {at::add(grad, grad_x.permute({0, 2, 3, 1}).to(grad.scalar_type())),
          grad_weight.to(weight.scalar_type()), grad_bias.to(bias.scalar_type())};
}

}  // namespace fathom::kernels::local_mixing_parts
