#include "train/task/location_head.h"

#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

constexpr int64_t kLocationWidth = 512;
/// Apart from those of the layers' dropout and of masking.
constexpr int64_t kPairStream = int64_t{5} << 40;

Linear make_linear(int64_t in, int64_t out) {
  return Linear(
      LinearOptions{.in = in, .out = out, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))});
}

/// (rows, columns) from the first to the second place of each pair: int64 [N, K, 2].
at::Tensor steps_between(const at::Tensor& place_NK2, int64_t side) {
  const at::Tensor row_NK2 = place_NK2.div(side, "floor"), column_NK2 = place_NK2.remainder(side);
  return at::stack({row_NK2, column_NK2}, 2).diff(1, 3).squeeze(3);
}

/// [N, K, 2, D]. The gradient of this look-up, unlike that of a gather, adds up in a fixed order on a GPU.
at::Tensor states_at(const at::Tensor& region_NPD, const at::Tensor& place_NK2) {
  const int64_t pictures = region_NPD.size(0), regions = region_NPD.size(1);
  const at::Tensor first_N = at::arange(pictures, place_NK2.options()) * regions;
  return at::embedding(region_NPD.flatten(0, 1), place_NK2 + first_N.view({pictures, 1, 1}));
}

}  // namespace

at::Tensor draw_region_pairs(const at::Tensor& key_N, int64_t pairs, int64_t regions) {
  return keyed_bits(key_N, {pairs, 2}, kPairStream).remainder(regions);
}

LocationHeadImpl::LocationHeadImpl(int64_t in)
    : first_(register_module("first", make_linear(2 * in, kLocationWidth))),
      second_(register_module("second", make_linear(kLocationWidth, kLocationWidth))),
      out_(register_module("out", make_linear(kLocationWidth, 2))) {}

at::Tensor LocationHeadImpl::forward(const at::Tensor& state_NK2D, const ForwardContext& context) {
  const at::Tensor first_NKH = at::relu(first_->forward(state_NK2D.flatten(2), context));
  const at::Tensor hidden_NKH = at::relu(second_->forward(first_NKH, context));
  const at::Tensor offset_NK2 = out_->forward(hidden_NKH.to(out_->weight().scalar_type()));
  return offset_NK2.to(at::promote_types(offset_NK2.scalar_type(), at::kFloat));
}

at::Tensor LocationHeadImpl::loss(const at::Tensor& region_NPD, const at::Tensor& key_N, int64_t pairs,
                                  const ForwardContext& context) {
  const int64_t regions = region_NPD.size(1);
  const int64_t side = std::llround(std::sqrt(static_cast<double>(regions)));
  FATHOM_CHECK(side * side == regions, "[location_head] expected a square map, got {} regions", regions);
  FATHOM_CHECK(key_N.defined(), "[location_head] expected a key a picture");
  const at::Tensor place_NK2 = draw_region_pairs(key_N, pairs, regions);
  const at::Tensor foretold_NK2 = forward(states_at(region_NPD, place_NK2), context);
  const at::Tensor true_NK2 =
      steps_between(place_NK2, side).to(foretold_NK2.scalar_type()) / static_cast<double>(side);
  return (foretold_NK2 - true_NK2).abs().mean({1, 2});
}

int64_t location_head_products(int64_t in) {
  return (2 * in + kLocationWidth + 2) * kLocationWidth;
}

}  // namespace fathom
