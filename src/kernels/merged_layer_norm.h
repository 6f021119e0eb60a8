// Four neighbours of a map side by side, normalised: what comes before a Swin's stages reduce their maps.
// Source: Liu et al., "Swin Transformer", 2021, section 3.1. B images, D width.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/residual_layer_norm.h"

namespace fathom::kernels {

/// `layer_norm` of the merged x + scale · branch. `x`: [B, height, width, D], both sides even; the branch's
/// value may be undefined; `weight`, `bias`: [4·D], of x's type or float32; their gradients have their own.
/// Result: [B, height/2, width/2, 4·D], neighbours by column, then row: upper left, lower left, upper right,
/// lower right.
at::Tensor merged_layer_norm(const at::Tensor& x, const Branch& branch, const at::Tensor& weight,
                             const at::Tensor& bias, double eps);

}  // namespace fathom::kernels
