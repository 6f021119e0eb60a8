// One more token of each sequence through all layers of a decoder in one launch, for a GPU: the host neither
// waits nor launches layer by layer, and a layer that no sequence's gate lets through costs its gate alone.
// The layers themselves (nn/block.h) are the reference. B sequences, L layers, D model width, H heads, K
// key-value heads, E head size, M inner width of the feed-forward layer, I width of a gate's bottleneck.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/counted_block.h"
#include "kernels/token_scorer.h"

namespace fathom::kernels {

struct DecodeLayer {
  CountedWeights weights;
  std::optional<TokenScorerWeights> scorer;  ///< none: the layer computes what `forced` says, or everything
  at::Tensor keys, values;                   ///< [B, K, capacity, E]
  at::Tensor gate_sum_B1I;                   ///< float32, of the scorer
  at::Tensor counts;  ///< float64 [3], to add to as `chosen_rows` does; undefined: nobody asks
};

struct DecodeStep {
  std::vector<DecodeLayer> layers;
  HeadLayout heads;
  int64_t position = 0;  ///< tokens that each sequence has seen before this one
  double eps = 1e-5;
  double gate_eps = 1e-5;
  at::Tensor cos_TF;  ///< float32 [1, E/2], as sin_TF
  at::Tensor sin_TF;
  at::Tensor key_count_LB;  ///< int32: keys that the caches hold
  at::Tensor meeting;       ///< int32 zeros [2 + B·K], of one launch at a time
  at::Tensor forced_LB;     ///< bool: layers that compute each token; undefined: gates decide
};

/// Whether there is a kernel for states like `x_BD` through such layers: 16 bits, all weights of their type,
/// E 64 or 128, 1, 2, 4 or 8 heads to a key, D, H·E and M multiples of 64, I of 8, at most 96 layers and 64
/// sequences, as far as 160 KB hold their states.
bool has_decode_layers(const at::Tensor& x_BD, const DecodeStep& step);

/// The states after all layers, [B, D], and which layers computed which token, bool [L, B]. Keys and values
/// are appended where a token was computed, and counted; gates' sums go on.
std::pair<at::Tensor, at::Tensor> decode_layers(const at::Tensor& x_BD, const DecodeStep& step);

}  // namespace fathom::kernels
