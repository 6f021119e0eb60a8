// What tests of single layers share.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "nn/block.h"
#include "nn/forward_context.h"

namespace fathom::testing {

inline at::Tensor keys(int64_t count) {
  return at::arange(count, at::kLong).mul(0x9e3779b97f4a7c1);
}

inline ForwardContext training(int64_t samples) {
  return {.training = true, .key_B = keys(samples)};
}

inline BlockOptions small_block(double dropout, double drop_path) {
  return {.attention = {.dim = 12, .heads = 3, .kv_heads = 1, .head_dim = 4},
          .mlp = {.dim = 12, .inner = 20},
          .dropout = dropout,
          .drop_path = drop_path,
          .layer = 2};
}

}  // namespace fathom::testing
