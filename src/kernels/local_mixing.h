// Neighbours on a map, mixed channel by channel. B batch, H height, W width, D channels.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// x + depthwise convolution(x) + bias, zeros around the map. `x_BHWD`; `weight`: [D, 1, side, side], side
/// odd; `bias`: [D]; both of any floating type, which their gradients have too. Source: Chu et al.,
/// "Conditional positional encodings for vision transformers", ICLR 2023.
at::Tensor local_mixing(const at::Tensor& x_BHWD, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace fathom::kernels
