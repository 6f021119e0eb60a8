// One more token of each sequence through all layers of a decoder.
#pragma once

#include <vector>

#include "nn/block.h"

namespace fathom {

/// All `blocks` in one launch (kernels/decode_layers.h), [B, 1, D] → [B, 1, D], and into `view.cache`.
/// Undefined where layers have to be run one by one: without such a kernel, or where they have adapters,
/// biases or gates of other kinds.
at::Tensor decoded(const std::vector<Block>& blocks, const at::Tensor& x_BTD, const AttentionView& view,
                   const ForwardContext& context);

}  // namespace fathom
