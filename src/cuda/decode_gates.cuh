// Which sequences compute a layer: gates' jobs, and what every block makes of their results for itself.
#pragma once

#include "cuda/decode_states.cuh"

namespace fathom::cuda {

/// The layer behind those whose gates are scored at once with that of `layer`.
__device__ inline int last_scored(const DecodeArgs& args, int layer) {
  int end = layer + 1;
  while (end < min(args.num_layers, layer + args.lookahead) && args.layers[end].gate_norm != nullptr) ++end;
  return end;
}

/// Of the gate of `layer`, scored with those from `first` on: each gives its jobs to the next blocks.
template <int kTiles>
__device__ Columns gate_columns(const DecodeArgs& args, int first, int layer) {
  Columns columns = single_columns<kTiles>(args.layers[layer].project, 2 * args.gate_inner, args.dim);
  columns.first_block = (layer - first) * columns.jobs % static_cast<int>(gridDim.x);
  return columns;
}

/// What some layers' gates let through, [layers, batch], and the keys that their caches hold.
struct Decisions {
  bool active[kMaxDecodeBatch];
  int held[kMaxDecodeBatch];
};

/// In every lane of a warp: what a scorer makes of one sequence.
template <typename T>
__device__ float score_of(const DecodeArgs& args, int layer, int row) {
  const int lane = threadIdx.x % 32, inner = args.gate_inner;
  const DecodeLayerArgs& weights = args.layers[layer];
  const float* both = args.both + (int64_t{layer} * args.batch + row) * 2 * inner;
  const float* before = weights.gate_sum + row * inner;
  const auto* shift = static_cast<const T*>(weights.shift);
  const auto* out = static_cast<const T*>(weights.out);
  const float bias = to_float(*static_cast<const T*>(weights.bias));
  float score = 0;
#pragma unroll 4
  for (int i = lane; i < inner; i += 32) {
    const float sum = before[i] + __ldcg(both + inner + i) + to_float(shift[inner + i]);
    const float hidden = __ldcg(both + i) + to_float(shift[i]) + sum / static_cast<float>(args.position + 1);
    score += 0.5f * hidden * (1 + erff(hidden * 0.70710678f)) * to_float(out[i]);
  }
  return warp_sum(score) + bias;
}

/// Which sequences compute layers `first` to `end`: every block finds the same. One keeps it for the end.
template <typename T>
__device__ void decide(const DecodeArgs& args, int first, int end, bool scored, Decisions& decisions) {
  for (int i = threadIdx.x / 32; i < (end - first) * args.batch; i += kDecodeWarps) {
    const int layer = first + i / args.batch, row = i % args.batch, at = layer * args.batch + row;
    const int held = args.key_count[at];
    const float score = scored ? score_of<T>(args, layer, row) : 0;
    bool active = !scored || 1 / (1 + expf(-score)) > 0.5f;
    if (args.forced != nullptr) active = args.forced[at];
    if (threadIdx.x % 32 != 0) continue;
    decisions.active[i] = active;
    decisions.held[i] = held;
    if (blockIdx.x != 0) continue;
    args.active[at] = active;
    args.score[at] = score;
  }
}

/// The sequences that compute the layer whose decisions begin at `begin`, when all warps have decided.
__device__ inline void choose(const DecodeArgs& args, const Decisions& decisions, int begin, Rows& rows) {
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x;
    int count = 0;
    for (int base = 0; base < args.batch; base += 32) {
      const int row = base + lane;
      const bool taken = row < args.batch && decisions.active[begin + row];
      const unsigned mask = __ballot_sync(0xffffffff, taken);
      if (taken) {
        const int place = count + __popc(mask & ((1u << lane) - 1));
        rows.sequence[place] = row;
        rows.held[place] = decisions.held[begin + row];
      }
      count += __popc(mask);
    }
    if (lane == 0) rows.count = count;
  }
  __syncthreads();
}

/// Brings near what gates add to their products, from that of layer `first` on: the last blocks a gate each.
__device__ inline void prefetch_gates(const DecodeArgs& args, int first) {
  const int layer = first + static_cast<int>(gridDim.x - 1 - blockIdx.x);
  if (layer >= last_scored(args, first)) return;
  const DecodeLayerArgs& weights = args.layers[layer];
  const auto prefetch_bytes = [](const void* from, int bytes) {
    for (int at = threadIdx.x * 128; at < bytes; at += kDecodeThreads * 128)
      prefetch_line(static_cast<const char*>(from) + at);
  };
  prefetch_bytes(weights.gate_sum, args.batch * args.gate_inner * 4);
  prefetch_bytes(weights.shift, 2 * args.gate_inner * 2);
  prefetch_bytes(weights.out, args.gate_inner * 2);
  prefetch_bytes(weights.bias, 2);
}

}  // namespace fathom::cuda
