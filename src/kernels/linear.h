// y = x Wᵀ + b.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/fp8_linear.h"
#include "kernels/product_type.h"
#include "kernels/weight_copies.h"
#include "tensor/gradient_rooms.h"

namespace fathom::kernels {

struct LinearTypes {
  Products products = {};
  std::optional<at::ScalarType> result = std::nullopt;  ///< without one, x's
  WeightCopies* copies = nullptr;                       ///< may have weight and bias in the products' type
  GradientRooms* rooms = nullptr;                       ///< may have a place for the weight's gradient
  const Fp8Products* fp8 = nullptr;                     ///< multiplies what fits in FP8 (`fp8_linear`)
};

/// `x`: [..., in]; `weight`: [out, in]; `bias`: [out] or undefined. Parameters of another type are cast, or
/// their copies taken; on a GPU the gradients of a float32 weight and bias are summed and written in float32.
/// Computed in `product_type(x)`, or of operands in FP16 where `types.products` says so: then sums are
/// float32 until they are written once, as are gradients of weights. There, what is written as FP16 saturates
/// as operands do, and learns as if it had fit; gradients do not saturate, since their infinity is what tells
/// that a loss scale is too large. A CPU computes the products of such operands in float32.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {},
                  const LinearTypes& types = {});

/// The sum over all dimensions but the last: the gradient of a bias. Summed in float32 or wider and rounded
/// to `type`, x's own without one. No gradient.
at::Tensor column_sum(const at::Tensor& x, std::optional<at::ScalarType> type = std::nullopt);

}  // namespace fathom::kernels
