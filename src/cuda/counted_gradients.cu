// Backward passes of counted_rows.cu: memory-bound, with grids that do not depend on the number of rows.
#include "cuda/counted_gradients.h"

#include "cuda/rotation.cuh"
#include "cuda/row_grid.h"
#include "cuda/swiglu_formula.cuh"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

/// A warp a place: its gradient goes to its row, and what its row brought to its score.
template <typename T>
__global__ void __launch_bounds__(kThreads) merge_grad_kernel(MergeGradArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % 32, vectors = static_cast<int>(args.dim / kWidth), count = *args.count;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  const float price = args.multiplier != nullptr ? static_cast<float>(*args.multiplier) * args.share : 0.0f;
  for (int64_t place = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; place < args.places; place += step) {
    const int slot = args.slot[place];
    const float score = args.score != nullptr ? args.score[place] : 0.0f;
    const bool active = slot >= 0 && slot < count, learns = args.score != nullptr && slot >= 0;
    const auto* grad = static_cast<const Vector*>(args.grad) + place * vectors;
    const int64_t row = int64_t{slot} * vectors;
    float gain = 0;
    for (int first = lane; (active || learns) && first < vectors; first += 32 * kVectorsAtOnce) {
      Vector above[kVectorsAtOnce], part[kVectorsAtOnce], added[kVectorsAtOnce];
#pragma unroll
      for (int k = 0; k < kVectorsAtOnce; ++k) {
        above[k] = part[k] = added[k] = {};
        const int v = first + k * 32;
        if (v >= vectors) continue;
        above[k] = grad[v];
        if (!learns) continue;
        part[k] = static_cast<const Vector*>(args.part)[row + v];
        added[k] = static_cast<const Vector*>(args.added)[row + v];
      }
#pragma unroll
      for (int k = 0; k < kVectorsAtOnce; ++k) {
        if (active && first + k * 32 < vectors)
          static_cast<Vector*>(args.grad_rows)[row + first + k * 32] = above[k];
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
          gain += to_float(above[k].values[i]) * (to_float(part[k].values[i]) + to_float(added[k].values[i]));
      }
    }
    if (args.score == nullptr) continue;
    gain = warp_sum(gain) * (active ? 1.0f : args.explored_weight) + price;
    if (lane != 0) continue;
    const float p = 1 / (1 + expf(-score));
    args.grad_score[place] = gain * p * (1 - p);
  }
}

/// A thread has a vector's place in a row, and rows in turn.
template <typename T>
__global__ void __launch_bounds__(kThreads, kColumnResidents) swiglu_grad_kernel(RowSwigluGradArgs args) {
  using Vector = Vector16<T>;
  const int64_t vectors = args.inner / Vector::kWidth,
                column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t count = args.rows.start[args.rows.sequences], step = gridDim.y;
  if (column >= vectors) return;
  for (int64_t first = blockIdx.y; first < count; first += step * kRowsAtOnce) {
    Vector gate[kRowsAtOnce], up[kRowsAtOnce], above[kRowsAtOnce];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int64_t row = first + r * step;
      if (row >= count) continue;
      const auto* x = static_cast<const Vector*>(args.gate_up) + row * 2 * vectors + column;
      gate[r] = x[0];
      up[r] = x[vectors];
      above[r] = static_cast<const Vector*>(args.grad)[row * vectors + column];
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int64_t row = first + r * step;
      if (row >= count) continue;
      const auto grad = gated_gradients(gate[r], up[r], above[r]);
      auto* out = static_cast<Vector*>(args.grad_gate_up) + row * 2 * vectors + column;
      out[0] = grad.gate;
      out[vectors] = grad.up;
    }
  }
}

/// A thread has a pair of vectors' place in a row's heads, and rows in turn, whose pairs it turns back and
/// packs.
template <typename T>
__global__ void __launch_bounds__(kThreads, kColumnResidents) rope_grad_kernel(RowRopeGradArgs args) {
  using Vector = Vector16<T>;
  const int pairs = static_cast<int>(args.head_size / 2 / Vector::kWidth);
  const int item = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int pair = item % pairs, head = item / pairs;
  const int queries = static_cast<int>(args.heads), keys = static_cast<int>(args.kv_heads);
  const int all_heads = queries + 2 * keys, tokens = static_cast<int>(args.rows.tokens);
  if (head >= all_heads) return;
  const bool is_query = head < queries, turns = head < queries + keys;
  const int own_heads = is_query ? queries : keys, own = is_query ? head : (head - queries) % keys;
  const auto* source = static_cast<const Vector*>(is_query ? args.grad_q : turns ? args.grad_k : args.grad_v);
  const int64_t count = args.rows.start[args.rows.sequences], step = gridDim.y;
  for (int64_t first = blockIdx.y; first < count; first += step * kRowsAtOnce) {
    Vector low[kRowsAtOnce], high[kRowsAtOnce];
    int place[kRowsAtOnce];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int64_t row = first + r * step;
      if (row >= count) continue;
      const Vector* from = source + (row * own_heads + own) * 2 * pairs + pair;
      low[r] = from[0];
      high[r] = from[pairs];
      if (turns) place[r] = args.rows.place[row];
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int64_t row = first + r * step;
      if (row >= count) continue;
      if (turns) turn<true>(low[r], high[r], args.cos, args.sin, int64_t{place[r] % tokens} * pairs + pair);
      auto* to = static_cast<Vector*>(args.grad_qkv) + (row * all_heads + head) * 2 * pairs + pair;
      to[0] = low[r];
      to[pairs] = high[r];
    }
  }
}

template <typename T>
cudaError_t merge_grad(const MergeGradArgs& args, cudaStream_t stream) {
  merge_grad_kernel<T><<<grid_of((args.places + kWarps - 1) / kWarps), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t swiglu_grad(const RowSwigluGradArgs& args, cudaStream_t stream) {
  const ColumnGrid grid(args.inner / Vector16<T>::kWidth, args.rows.sequences * args.rows.tokens);
  swiglu_grad_kernel<T><<<grid.blocks, grid.threads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t rope_grad(const RowRopeGradArgs& args, cudaStream_t stream) {
  const int64_t heads = args.heads + 2 * args.kv_heads, room = args.rows.sequences * args.rows.tokens;
  const ColumnGrid grid(heads * args.head_size / 2 / Vector16<T>::kWidth, room);
  rope_grad_kernel<T><<<grid.blocks, grid.threads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_merge_grad(ElementType type, const MergeGradArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return merge_grad<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? merge_grad<__half>(args, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_row_swiglu_grad(ElementType type, const RowSwigluGradArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return swiglu_grad<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? swiglu_grad<__half>(args, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_row_rope_grad(ElementType type, const RowRopeGradArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return rope_grad<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? rope_grad<__half>(args, stream) : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
