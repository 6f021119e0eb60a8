#include "kernels/fp8.h"

#include <optional>
#include <tuple>

#include "kernels/call.h"
#include "kernels/fp8_heads.h"
#include "kernels/fp8_linear.h"
#include "kernels/fp8_rms_norm.h"

namespace fathom::bench {
namespace {

constexpr double kEps = 1e-5;

std::vector<at::Tensor> values_of(const kernels::Fp8Pair& pair) {
  return {pair.plain.values_RK, pair.turned.values_RK};
}

/// Activations in FP8, as they are and turned: half the bytes of a number each.
Kernel fp8_tiles_kernel(const Operands& make) {
  const at::Tensor x = make.random({make.rows / 16 * 16, make.dim}).detach();
  const kernels::Fp8Wish wish{.plain = kernels::TileScales::kByRow, .turned = kernels::TileScales::kByTile};
  const auto forward = [=] { return values_of(kernels::fp8_tiles(x, wish)); };
  return {"fp8_tiles", {x}, forward, {2 * static_cast<double>(x.numel())}};
}

/// Forward x is turned into FP8, and in training the gradient; the weight is each time.
Kernel fp8_linear_kernel(const Operands& make) {
  const int64_t rows = make.rows / 16 * 16;
  const at::Tensor x = make.random({rows, make.dim});
  const at::Tensor weight =
      at::randn({4 * make.dim, make.dim}, make.options.dtype(at::kFloat)).requires_grad_();
  const auto forward = [=] {
    return std::vector{kernels::fp8_linear(x, weight, {}, {.least_intensity = 0}, nullptr)};
  };
  const double n = static_cast<double>(rows * make.dim), flops = 8 * n * static_cast<double>(make.dim);
  return {"fp8_linear", {x, weight}, forward, {5 * n, flops}, {10 * n, 2 * flops}, 2};
}

/// With a residual sum.
Kernel fp8_norm_kernel(const Operands& make) {
  const std::vector<int64_t> sizes = {make.rows / 16 * 16, make.dim};
  const at::Tensor x = make.random(sizes).detach(), branch = make.random(sizes).detach(),
                   weight = at::randn({make.dim}, make.options.dtype(at::kFloat));
  const auto forward = [=] {
    const auto normed = kernels::fp8_rms_norm(x, branch, {weight, kEps}, true, {});
    return values_of(normed.rows.in_fp8);
  };
  return {"fp8_rms_norm", {x}, forward, {4 * static_cast<double>(x.numel())}};
}

Kernel fp8_norm_backward_kernel(const Operands& make) {
  using MaybeTensor = std::optional<at::Tensor>;
  using Six = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
  static const auto op =
      kernels::find_op<Six(const MaybeTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, at::ScalarType, int64_t, int64_t, const MaybeTensor&)>(
          "fathom::fp8_rms_norm_backward");
  const std::vector<int64_t> sizes = {make.rows / 16 * 16, make.dim};
  const at::Tensor beside = make.random(sizes).detach(), grad = make.random(sizes).detach(),
                   sum = make.random(sizes).detach(),
                   weight = at::randn({make.dim}, make.options.dtype(at::kFloat)),
                   scale = at::rand({sizes[0], 1}, make.options.dtype(at::kFloat));
  constexpr auto kByRow = static_cast<int64_t>(kernels::TileScales::kByRow);
  const auto forward = [=] {
    const Six found =
        op.call(beside, grad, sum, weight, scale, at::kFloat8_e4m3fn, kByRow, kByRow, std::nullopt);
    return std::vector{std::get<0>(found), std::get<2>(found), std::get<4>(found)};
  };
  return {"fp8_rms_norm_backward", {sum}, forward, {5 * static_cast<double>(sum.numel())}};
}

struct HeadsOperands {
  kernels::HeadRotation rotation;
  at::Tensor qkv_BTC;

  explicit HeadsOperands(const Operands& make)
      : qkv_BTC(make.random({make.batch(), make.tokens(), 3 * make.dim}).detach()) {
    const at::Tensor angle_TF =
        at::randn({make.tokens(), make.dim / make.heads() / 2}, make.options.dtype(at::kFloat));
    rotation = {.cos_TF = angle_TF.cos(), .sin_TF = angle_TF.sin(), .layout = {make.heads(), make.heads()}};
  }
};

/// Queries and keys alone are read and written.
Kernel rope_in_place_kernel(const Operands& make) {
  const HeadsOperands operands(make);
  const auto forward = [=] {
    kernels::rope_heads_in_place(operands.qkv_BTC, operands.rotation);
    return std::vector{operands.qkv_BTC};
  };
  return {"rope_heads_in_place", {operands.qkv_BTC}, forward, {4 * make.numbers()}};
}

Kernel fp8_rope_backward_kernel(const Operands& make) {
  const HeadsOperands operands(make);
  const auto [q, k, v] = kernels::rope_heads(operands.qkv_BTC, operands.rotation.cos_TF,
                                             operands.rotation.sin_TF, operands.rotation.layout);
  const kernels::Fp8Wish wish{.plain = kernels::TileScales::kByRow, .turned = kernels::TileScales::kByRow};
  const auto forward = [operands, wish, grads = kernels::Heads{q, k, v}] {
    return values_of(kernels::fp8_rope_heads_backward(grads, operands.rotation, wish));
  };
  return {"fp8_rope_heads_backward", {operands.qkv_BTC}, forward, {6 * make.numbers()}};
}

}  // namespace

std::vector<Kernel> fp8_kernels(const Operands& make) {
  if (make.options.dtype() != at::kBFloat16 || !kernels::has_fp8_products(make.options.device())) return {};
  return {fp8_tiles_kernel(make),         fp8_linear_kernel(make),    fp8_norm_kernel(make),
          fp8_norm_backward_kernel(make), rope_in_place_kernel(make), fp8_rope_backward_kernel(make)};
}

}  // namespace fathom::bench
