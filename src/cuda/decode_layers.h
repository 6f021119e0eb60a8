// What the registration of decoding hands to its kernel: raw pointers and a stream. See
// kernels/decode_layers.h for the meaning of each.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

constexpr int kMaxDecodeLayers = 96;
constexpr int kMaxDecodeBatch = 64;
constexpr int kMostScored = 8;  ///< gates times sequences, of those that are scored ahead of their layers

struct DecodeLayerArgs {
  const void* attention_norm;
  const void* qkv;
  const void* output;
  const void* mlp_norm;
  const void* gate_up;
  const void* down;
  const void* gate_norm;  ///< null: no scorer
  const void* project;
  const void* shift;
  const void* out;
  const void* bias;
  void* keys;  ///< [batch, kv_heads, capacity, head_size]
  void* values;
  float* gate_sum;  ///< [batch, gate_inner]
  double* counts;   ///< [3], or null
};

struct DecodeArgs {
  DecodeLayerArgs layers[kMaxDecodeLayers];
  int num_layers;
  int batch;
  int dim;
  int heads;
  int kv_heads;
  int head_size;
  int inner;
  int gate_inner;
  int capacity;
  int position;      ///< tokens that each sequence has seen
  int lookahead;     ///< set by the launch: gates that are scored at once, on the states of the first
  int staged_units;  ///< set by the launch: chunks of weights that a warp asks for ahead
  int most_splits;   ///< parts of a sequence's keys that blocks share
  float eps;
  float gate_eps;
  void* x;           ///< [batch, dim], in place
  const float* cos;  ///< [head_size / 2]
  const float* sin;
  int32_t* key_count;  ///< [num_layers, batch]
  const bool* forced;  ///< [num_layers, batch], or null
  bool* active;        ///< [num_layers, batch]

  // Room for what blocks tell one another.
  float* both;        ///< [num_layers, batch, 2 · gate_inner]
  float* score;       ///< [num_layers, batch]
  void* turned;       ///< [batch, (heads + 2 · kv_heads) · head_size]
  float* parts;       ///< [batch, heads, most_splits, head_size + 2]
  void* attended;     ///< [batch, heads · head_size]
  void* gated;        ///< [batch, inner]
  unsigned* arrived;  ///< [2 + batch · kv_heads], zero before and after
};

struct DecodeCard {
  int multiprocessors;
  int64_t shared_bytes;  ///< that a block may have
};

/// Whether the kernel takes these sizes.
bool decode_layers_fit(const DecodeArgs& args, const DecodeCard& card);
/// `type`: kHalf or kBFloat16. Needs all of the card: blocks wait for one another.
cudaError_t launch_decode_layers(ElementType type, DecodeArgs& args, const DecodeCard& card,
                                 cudaStream_t stream);

}  // namespace fathom::cuda
