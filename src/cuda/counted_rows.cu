// Rotation, gating, dropout and merging of rows of which the device alone knows how many there are:
// memory-bound. A warp, or a thread a vector, walks over the rows in use; grids do not depend on their
// number.
#include "cuda/counted_rows.h"
#include "cuda/rotation.cuh"
#include "cuda/row_grid.h"
#include "cuda/swiglu_formula.cuh"
#include "cuda/vectors.cuh"
#include "tensor/keyed_bits.h"

namespace fathom::cuda {
namespace {

__device__ int rows_in_use(const RowsArgs& rows) {
  return rows.start[rows.sequences];
}

/// A thread has a pair of vectors' place in a row's heads, and rows in turn.
template <typename T>
__global__ void __launch_bounds__(kThreads, kColumnResidents) rope_kernel(RowRopeArgs args) {
  using Vector = Vector16<T>;
  const int pairs = static_cast<int>(args.head_size / 2 / Vector::kWidth);
  const int item = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int pair = item % pairs, head = item / pairs, keys = static_cast<int>(args.kv_heads);
  const int queries = static_cast<int>(args.heads), turned = queries + keys, all_heads = turned + keys;
  if (head >= (args.keys != nullptr ? all_heads : turned)) return;
  const int64_t count = rows_in_use(args.rows), step = gridDim.y;
  const int tokens = static_cast<int>(args.rows.tokens);
  for (int64_t first = blockIdx.y; first < count; first += step * kRowsAtOnce) {
    Vector low[kRowsAtOnce], high[kRowsAtOnce];
    int place[kRowsAtOnce];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int64_t row = first + r * step;
      if (row >= count) continue;
      const auto* from = static_cast<const Vector*>(args.qkv) + (row * all_heads + head) * 2 * pairs + pair;
      low[r] = from[0];
      high[r] = from[pairs];
      place[r] = args.rows.place[row];
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int64_t row = first + r * step;
      if (row >= count) continue;
      const int sequence = place[r] / tokens, position = place[r] % tokens;
      if (head < turned) {
        turn<false>(low[r], high[r], args.cos, args.sin, int64_t{position} * pairs + pair);
        auto* to = static_cast<Vector*>(args.qkv) + (row * all_heads + head) * 2 * pairs + pair;
        to[0] = low[r];
        to[pairs] = high[r];
      }
      if (args.keys == nullptr || head < queries) continue;
      const int64_t slot = (int64_t{sequence} * keys + (head - queries) % keys) * args.capacity + row -
                           args.rows.start[sequence];
      auto* cache = static_cast<Vector*>(head < turned ? args.keys : args.values) + slot * 2 * pairs + pair;
      cache[0] = low[r];
      cache[pairs] = high[r];
    }
  }
}

/// A thread has a vector's place in a row, and rows in turn.
template <typename T>
__global__ void __launch_bounds__(kThreads, kColumnResidents) swiglu_kernel(RowSwigluArgs args) {
  using Vector = Vector16<T>;
  const int64_t vectors = args.inner / Vector::kWidth,
                column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t count = rows_in_use(args.rows), step = gridDim.y;
  if (column >= vectors) return;
  for (int64_t first = blockIdx.y; first < count; first += step * kRowsAtOnce) {
    Vector gate[kRowsAtOnce], up[kRowsAtOnce];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int64_t row = first + r * step;
      if (row >= count) continue;
      const auto* x = static_cast<const Vector*>(args.gate_up) + row * 2 * vectors + column;
      gate[r] = x[0];
      up[r] = x[vectors];
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int64_t row = first + r * step;
      if (row < count) static_cast<Vector*>(args.y)[row * vectors + column] = gated_values(gate[r], up[r]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(RowDropoutArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int64_t vectors = args.dim / kWidth, items = rows_in_use(args.rows) * vectors;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += step) {
    const int place = args.rows.place[item / vectors], tokens = static_cast<int>(args.rows.tokens);
    const int64_t key = args.key[place / tokens];
    const auto token = sample_key(token_key(key, static_cast<uint32_t>(place % tokens)), args.stream);
    const bool stays = keyed_bits(sample_key(key, args.stream + 1), 0) >= args.sequence_threshold;
    const auto column = static_cast<uint32_t>(item % vectors * kWidth);
    Vector vector = static_cast<const Vector*>(args.x)[item];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const bool kept = stays && keyed_bits(token, column + i) >= args.threshold;
      const float value = to_float(vector.values[i]) * args.scale * args.sequence_scale;
      vector.values[i] = from_float<T>(kept ? value : 0.0f);
    }
    static_cast<Vector*>(args.y)[item] = vector;
  }
}

/// A warp a place.
template <typename T>
__global__ void __launch_bounds__(kThreads) merge_kernel(MergeRowsArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % 32, vectors = static_cast<int>(args.dim / kWidth), count = *args.count;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t place = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; place < args.places; place += step) {
    const int slot = args.slot[place];
    const bool computed = slot >= 0 && slot < count;
    if (!computed && args.y == args.x) continue;
    const int64_t at_place = place * vectors, at_row = int64_t{slot} * vectors;
    const auto* from = computed ? static_cast<const Vector*>(args.h) + at_row
                                : static_cast<const Vector*>(args.x) + at_place;
    for (int first = lane; first < vectors; first += 32 * kVectorsAtOnce) {
      Vector y[kVectorsAtOnce], added[kVectorsAtOnce];
#pragma unroll
      for (int k = 0; k < kVectorsAtOnce; ++k) {
        const int v = first + k * 32;
        if (v >= vectors) continue;
        y[k] = from[v];
        if (computed) added[k] = static_cast<const Vector*>(args.added)[at_row + v];
      }
#pragma unroll
      for (int k = 0; k < kVectorsAtOnce; ++k) {
        const int v = first + k * 32;
        if (v >= vectors) continue;
        if (computed)
#pragma unroll
          for (int i = 0; i < kWidth; ++i)
            y[k].values[i] = from_float<T>(to_float(y[k].values[i]) + to_float(added[k].values[i]));
        static_cast<Vector*>(args.y)[at_place + v] = y[k];
      }
    }
  }
}

int64_t room_of(const RowsArgs& rows) {
  return rows.sequences * rows.tokens;
}

template <typename T>
cudaError_t rope(const RowRopeArgs& args, cudaStream_t stream) {
  const int64_t heads = args.heads + (args.keys != nullptr ? 2 : 1) * args.kv_heads;
  const ColumnGrid grid(heads * args.head_size / 2 / Vector16<T>::kWidth, room_of(args.rows));
  rope_kernel<T><<<grid.blocks, grid.threads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t swiglu(const RowSwigluArgs& args, cudaStream_t stream) {
  const ColumnGrid grid(args.inner / Vector16<T>::kWidth, room_of(args.rows));
  swiglu_kernel<T><<<grid.blocks, grid.threads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t dropout(const RowDropoutArgs& args, cudaStream_t stream) {
  dropout_kernel<T><<<vector_grid(room_of(args.rows) * args.dim), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t merge(const MergeRowsArgs& args, cudaStream_t stream) {
  merge_kernel<T><<<grid_of((args.places + kWarps - 1) / kWarps), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_row_rope(ElementType type, const RowRopeArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return rope<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? rope<__half>(args, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_row_swiglu(ElementType type, const RowSwigluArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return swiglu<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? swiglu<__half>(args, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_row_dropout(ElementType type, const RowDropoutArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return dropout<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? dropout<__half>(args, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_merge_rows(ElementType type, const MergeRowsArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return merge<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? merge<__half>(args, stream) : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
