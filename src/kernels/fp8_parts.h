// What layers in FP8 share. For their autograd functions alone.
#pragma once

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>
#include <vector>

#include "kernels/fp8_linear.h"
#include "kernels/linear_gradient.h"

namespace fathom::kernels {

/// What a backward pass needs of a layer beside matrices. The rooms' owner outlives the pass.
struct Fp8Holder : torch::CustomClassHolder {
  Fp8Holder(std::vector<at::Tensor> w, const Fp8Products& products, GradientRooms* r)
      : weights(std::move(w)), beyond(products.beyond), gradients(products.gradients), rooms(r) {}

  /// For the gradient of one of the weights: float32, where it is to lie.
  at::Tensor room(size_t weight) const {
    const at::Tensor found = rooms != nullptr ? rooms->take(weights[weight]) : at::Tensor();
    if (found.defined()) return found;
    return at::empty(weights[weight].sizes(), weights[weight].options().requires_grad(false));
  }
  /// A gradient that goes back, as the left factor of what is wanted of it: of the inputs', the weight's.
  Fp8Wish wish(bool of_inputs, bool of_weight) const {
    return {.type = gradients, .plain = by_row(of_inputs), .turned = by_row(of_weight)};
  }

  std::vector<at::Tensor> weights;
  at::Tensor beyond;
  at::ScalarType gradients;
  GradientRooms* rooms;

 private:
  static TileScales by_row(bool wanted) { return wanted ? TileScales::kByRow : TileScales::kUnwanted; }
};

/// Activations, which multiply a weight from the left and, where that learns, turned, its gradient from the
/// right.
inline Fp8Wish activation_wish(bool learns) {
  return {.plain = TileScales::kByRow, .turned = learns ? TileScales::kByTile : TileScales::kUnwanted};
}

inline Fp8Pair weight_in_fp8(const at::Tensor& weight, const Fp8Products& products) {
  if (products.weights != nullptr) return products.weights->of(weight, products.beyond);
  return fp8_tiles(weight, {.plain = TileScales::kByTile, .turned = TileScales::kByTile}, products.beyond);
}

/// Whether somebody asks for its gradient. To be asked outside of an autograd function.
inline bool learns(const at::Tensor& weight) {
  return at::GradMode::is_enabled() && weight.requires_grad();
}

/// left rightᵀ in bfloat16: [rows of left, rows of right].
inline at::Tensor narrow_product(const Fp8Matrix& left, const Fp8Matrix& right, const at::Tensor& bias = {}) {
  auto y = at::empty({left.values_RK.size(0), right.values_RK.size(0)},
                     left.values_RK.options().dtype(at::kBFloat16));
  fp8_product(left, right, bias, y);
  return y;
}

}  // namespace fathom::kernels
