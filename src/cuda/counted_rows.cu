// Rotation, gating, dropout and merging of rows of which the device alone knows how many there are:
// memory-bound. A warp, or a thread a vector, walks over the rows in use; grids do not depend on their
// number.
#include "cuda/awaited.cuh"
#include "cuda/counted_rows.h"
#include "cuda/row_grid.h"
#include "cuda/vectors.cuh"
#include "tensor/keyed_bits.h"

namespace fathom::cuda {
namespace {

__device__ int rows_in_use(const RowsArgs& rows) {
  return rows.start[rows.sequences];
}

/// A thread turns a vector of a head's first half against that of its second.
template <typename T>
__global__ void __launch_bounds__(kThreads) rope_kernel(Awaited<RowRopeArgs> awaited) {
  const RowRopeArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int pairs = static_cast<int>(args.head_size / 2 / kWidth);
  const int turned = static_cast<int>(args.heads + args.kv_heads);
  const int heads = args.keys != nullptr ? turned + static_cast<int>(args.kv_heads) : turned;
  const int all_heads = static_cast<int>(args.heads + 2 * args.kv_heads);
  const int64_t items = int64_t{rows_in_use(args.rows)} * heads * pairs;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += step) {
    const int pair = static_cast<int>(item % pairs), head = static_cast<int>(item / pairs % heads);
    const int row = static_cast<int>(item / pairs / heads);
    const int place = args.rows.place[row], tokens = static_cast<int>(args.rows.tokens);
    const int sequence = place / tokens, position = place % tokens;
    auto* low = static_cast<Vector*>(args.qkv) + (int64_t{row} * all_heads + head) * 2 * pairs + pair;
    Vector a = low[0], b = low[pairs];
    if (head < turned) {
      const int64_t angle = (int64_t{position} * pairs + pair) * kWidth;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float x = to_float(a.values[i]), y = to_float(b.values[i]);
        const float cos = __ldg(args.cos + angle + i), sin = __ldg(args.sin + angle + i);
        a.values[i] = from_float<T>(x * cos - y * sin);
        b.values[i] = from_float<T>(y * cos + x * sin);
      }
      low[0] = a;
      low[pairs] = b;
    }
    if (args.keys == nullptr || head < args.heads) continue;
    const int kv_head = (head - static_cast<int>(args.heads)) % static_cast<int>(args.kv_heads);
    auto* cache = static_cast<Vector*>(head < turned ? args.keys : args.values);
    cache +=
        ((sequence * args.kv_heads + kv_head) * args.capacity + row - args.rows.start[sequence]) * 2 * pairs +
        pair;
    cache[0] = a;
    cache[pairs] = b;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(Awaited<RowSwigluArgs> awaited) {
  const RowSwigluArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int64_t vectors = args.inner / kWidth, items = rows_in_use(args.rows) * vectors;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += step) {
    const auto* x = static_cast<const Vector*>(args.gate_up) + item + item / vectors * vectors;
    const Vector gate = x[0], up = x[vectors];
    Vector y;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float g = to_float(gate.values[i]);
      y.values[i] = from_float<T>(to_float(from_float<T>(g / (1 + __expf(-g)))) * to_float(up.values[i]));
    }
    static_cast<Vector*>(args.y)[item] = y;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(Awaited<RowDropoutArgs> awaited) {
  const RowDropoutArgs& args = awaited.get();
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

template <typename T>
__global__ void __launch_bounds__(kThreads) merge_kernel(Awaited<MergeRowsArgs> awaited) {
  const MergeRowsArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int64_t vectors = args.dim / kWidth, items = args.places * vectors;
  const int count = *args.count;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += step) {
    const int slot = args.slot[item / vectors];
    Vector y;
    if (slot < 0 || slot >= count) {
      if (args.y == args.x) continue;
      y = static_cast<const Vector*>(args.x)[item];
    } else {
      const int64_t source = slot * vectors + item % vectors;
      y = args.h != nullptr ? static_cast<const Vector*>(args.h)[source]
                            : static_cast<const Vector*>(args.x)[item];
      const Vector added = static_cast<const Vector*>(args.added)[source];
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        y.values[i] = from_float<T>(to_float(y.values[i]) + to_float(added.values[i]));
    }
    static_cast<Vector*>(args.y)[item] = y;
  }
}

int64_t room_of(const RowsArgs& rows) {
  return rows.sequences * rows.tokens;
}

template <typename T>
cudaError_t rope(const RowRopeArgs& args, cudaStream_t stream) {
  const int64_t heads = args.heads + 2 * args.kv_heads;
  launch_awaiting(rope_kernel<T>, vector_grid(room_of(args.rows) * heads * args.head_size / 2), kThreads, 0,
                  stream, args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t swiglu(const RowSwigluArgs& args, cudaStream_t stream) {
  launch_awaiting(swiglu_kernel<T>, vector_grid(room_of(args.rows) * args.inner), kThreads, 0, stream, args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t dropout(const RowDropoutArgs& args, cudaStream_t stream) {
  launch_awaiting(dropout_kernel<T>, vector_grid(room_of(args.rows) * args.dim), kThreads, 0, stream, args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t merge(const MergeRowsArgs& args, cudaStream_t stream) {
  launch_awaiting(merge_kernel<T>, vector_grid(args.places * args.dim), kThreads, 0, stream, args);
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
