// Gates in decoding: those of several layers are scored at once, on the states of the first, since these stay
// as they are until one lets a sequence through.
#pragma once

#include "cuda/decode_product.cuh"
#include "cuda/gelu_formula.cuh"

namespace fathom::cuda {

/// The layer behind those whose gates are scored at once with that of `layer`.
__device__ int last_scored(const DecodeArgs& args, int layer) {
  int end = layer + 1;
  while (end < min(args.num_layers, layer + args.lookahead) && args.layers[end].gate_norm != nullptr) ++end;
  return end;
}

/// Of the gate of `layer`, scored with those from `first` on: each gives its jobs to the next blocks.
__device__ Columns gate_columns(const DecodeArgs& args, int first, int layer) {
  Columns columns = plain_columns(args.layers[layer].project, 2 * args.gate_inner, args.dim);
  columns.first_block = (layer - first) * columns.jobs % static_cast<int>(gridDim.x);
  return columns;
}

__device__ bool is_last_block() {
  return blockIdx.x + 1 == gridDim.x;
}

/// Asks for what `choose` reads beside the scorers' products.
template <typename T>
__device__ void prefetch_choice(const DecodeArgs& args, int first, int end) {
  const int bytes = args.gate_inner * static_cast<int>(sizeof(T));
  for (int layer = first; layer < end; ++layer) {
    const DecodeLayerArgs& weights = args.layers[layer];
    prefetch_bytes(weights.shift, 2 * bytes);
    prefetch_bytes(weights.out, bytes);
    prefetch_bytes(weights.bias, 1);
    prefetch_bytes(weights.gate_sum, args.batch * args.gate_inner * static_cast<int>(sizeof(float)));
  }
}

/// What the scorers of layers `first` to `end` make of all sequences, before their sums.
template <typename T, int kTiles>
__device__ void score_gates(const DecodeArgs& args, int first, int end, T* input, float* sums, Stage& stage,
                            const Rows& all) {
  const int width = 2 * args.gate_inner;
  if (is_last_block()) prefetch_choice<T>(args, first, end);
  for (int layer = first; layer < end; ++layer) {
    const Columns columns = gate_columns(args, first, layer);
    if (columns.first_job() >= columns.jobs) continue;
    if (stage.weight != columns.weight) stage_weights<T>(columns, stage);
    load_normed(input, args, all, args.layers[layer].gate_norm, args.gate_eps);
    float* both = args.both + int64_t{layer} * args.batch * width;
    product<T, kTiles, false>(
        columns, all.count, sums, stage,
        [&](int row, int k) {
          return *reinterpret_cast<const uint4*>(input + row * (args.dim + kPadding) + k);
        },
        [&](int column, int row, float sum, float) { both[row * width + column] = sum; });
  }
}

/// What gates say of some layers: whether they compute a sequence, [layers, batch].
using Choices = bool[kMaxDecodeBatch];
static_assert(kMostScored <= kMaxDecodeBatch);

/// What a gate makes of a sequence, before the sigmoid; of a warp.
template <typename T>
__device__ float score_of(const DecodeArgs& args, int layer, int row) {
  const int lane = threadIdx.x % 32, inner = args.gate_inner;
  const DecodeLayerArgs& weights = args.layers[layer];
  const float* both = args.both + (int64_t{layer} * args.batch + row) * 2 * inner;
  const float* before = weights.gate_sum + row * inner;
  const auto* shift = static_cast<const T*>(weights.shift);
  const auto* out = static_cast<const T*>(weights.out);
  const float count = static_cast<float>(args.position + 1);
  float score = 0;
#pragma unroll 4
  for (int i = lane; i < inner; i += 32) {
    const float sum = before[i] + __ldcg(both + inner + i) + to_float(shift[inner + i]);
    const float hidden = __ldcg(both + i) + to_float(shift[i]) + sum / count;
    score += gelu<float>(hidden) * to_float(out[i]);
  }
  return warp_sum(score) + to_float(*static_cast<const T*>(weights.bias));
}

/// Which sequences compute layers `first` to `end`, whose gates are `scored` or which have none: every block
/// finds the same. One block keeps it for the end.
template <typename T>
__device__ void choose(const DecodeArgs& args, int first, int end, bool scored, Choices& chosen) {
  __syncthreads();  // nobody reads the former ones any more
  for (int pair = threadIdx.x / 32; pair < (end - first) * args.batch; pair += kDecodeWarps) {
    const int layer = first + pair / args.batch, row = pair % args.batch;
    bool active = true;
    float score = 0;
    if (scored) {
      score = score_of<T>(args, layer, row);
      active = 1 / (1 + expf(-score)) > 0.5f;
    }
    const int place = layer * args.batch + row;
    if (args.forced != nullptr) active = args.forced[place];
    if (threadIdx.x % 32 != 0) continue;
    chosen[pair] = active;
    if (blockIdx.x != 0) continue;
    args.active[place] = active;
    args.score[place] = score;
  }
  __syncthreads();
}

/// The sequences that are chosen for one layer. All of the block find the same count.
__device__ int take_chosen(const bool* chosen, int batch, Rows& rows) {
  const int lane = threadIdx.x % 32;
  int count = 0;
  for (int base = 0; base < batch; base += 32) {
    const bool taken = base + lane < batch && chosen[base + lane];
    const unsigned mask = __ballot_sync(0xffffffff, taken);
    if (threadIdx.x < 32 && taken) rows.sequence[count + __popc(mask & ((1u << lane) - 1))] = base + lane;
    count += __popc(mask);
  }
  if (count == 0) return 0;
  if (threadIdx.x == 0) rows.count = count;
  __syncthreads();
  return count;
}

}  // namespace fathom::cuda
