// Regions of a picture that know where they lie to each other. N pictures, K pairs, P regions, D width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/linear.h"

namespace fathom {

/// K pairs of places among `regions`, drawn by each picture's key (int64 [N]), a place with itself included:
/// int64 [N, K, 2].
at::Tensor draw_region_pairs(const at::Tensor& key_N, int64_t pairs, int64_t regions);

/// Foretells from the states of two regions how far the second lies from the first; thrown away after
/// training. Source: Liu et al., "Efficient training of visual transformers with small datasets", NeurIPS
/// 2021, section 4; here with the direction, not the distance alone.
class LocationHeadImpl : public torch::nn::Module {
 public:
  /// `in`: D.
  explicit LocationHeadImpl(int64_t in);
  /// States of two regions [N, K, 2, D] → (rows, columns) from the first to the second ÷ the map's side:
  /// [N, K, 2], float32 or wider.
  at::Tensor forward(const at::Tensor& state_NK2D, const ForwardContext& context = {});
  /// The mean distance |foretold − true| over `pairs` pairs and both directions: [N], float32 or wider.
  /// REQUIRES regions of a square map, row by row, and a key (int64) a picture.
  at::Tensor loss(const at::Tensor& region_NPD, const at::Tensor& key_N, int64_t pairs,
                  const ForwardContext& context = {});

 private:
  Linear first_{nullptr};
  Linear second_{nullptr};
  Linear out_{nullptr};
};
TORCH_MODULE(LocationHead);

/// Weights that each pair of states of width `in` is multiplied with.
int64_t location_head_products(int64_t in);

}  // namespace fathom
