// What a phase of decoding multiplies: the states of the sequences that compute a layer, brought into shared
// memory by all threads of a block at once, so that a phase waits for other multiprocessors' results once.
#pragma once

#include "cuda/decode_product.cuh"

namespace fathom::cuda {

constexpr int kStatesAhead = 4;  ///< vectors that a thread asks for before it takes the first

/// What a block keeps of the sequences that compute the present layer.
struct Rows {
  int sequence[kMaxDecodeBatch];
  int held[kMaxDecodeBatch];  ///< keys that the layer's cache has of each
  int count;
};

/// Whether the states of `count` sequences have room.
__device__ inline bool states_fit(const DecodeArgs& args, int count, int depth) {
  return int64_t{2} * count * (depth + kPadding) <= args.state_bytes;
}

/// States of some sequences, [B, depth] → [count, depth + kPadding] in shared memory.
template <typename T>
__device__ void load_states(T* held, const T* states, int depth, const Rows& rows) {
  const int vectors = depth / 8, total = rows.count * vectors;
  for (int base = threadIdx.x; base < total; base += kStatesAhead * kDecodeThreads) {
    uint4 loaded[kStatesAhead];
#pragma unroll
    for (int a = 0; a < kStatesAhead; ++a) {
      const int v = base + a * kDecodeThreads;
      if (v < total)
        loaded[a] = shared_by_blocks(states + int64_t{rows.sequence[v / vectors]} * depth + v % vectors * 8);
    }
#pragma unroll
    for (int a = 0; a < kStatesAhead; ++a) {
      const int v = base + a * kDecodeThreads;
      if (v < total)
        *reinterpret_cast<uint4*>(held + v / vectors * (depth + kPadding) + v % vectors * 8) = loaded[a];
    }
  }
  __syncthreads();
}

/// A norm's weights, asked for ahead.
struct StagedNorm {
  uint4* room;                   ///< [dim / 8] in shared memory
  const void* weight = nullptr;  ///< what is there or on its way
  bool is_there = true;
};

/// All threads have copies of their own to wait for, then for one another.
__device__ inline void stage_norm(const void* weight, int dim, StagedNorm& norm) {
  if (norm.weight == weight) return;
  if (!norm.is_there) asm volatile("cp.async.wait_all;" ::: "memory");  // copies to one place keep no order
  for (int v = threadIdx.x; v < dim / 8; v += kDecodeThreads)
    copy_ahead(norm.room + v, static_cast<const uint4*>(weight) + v);
  norm.weight = weight;
  norm.is_there = false;
}

/// rms_norm of some sequences' states, into shared memory. Up to four rows are shared by several warps.
template <typename T>
__device__ void load_normed(T* normed, const DecodeArgs& args, const Rows& rows, const void* weight,
                            StagedNorm& norm, float eps) {
  using Vector = Vector16<T>;
  __shared__ float squares[kMaxDecodeBatch];  // [rows, warps of a row]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, vectors = args.dim / 8;
  const int sharing = rows.count == 1   ? kDecodeWarps
                      : rows.count == 2 ? kDecodeWarps / 2
                      : rows.count <= 4 ? 2
                                        : 1;
  const int step = sharing * 32, begin = warp % sharing * 32 + lane;
  stage_norm(weight, args.dim, norm);
  for (int row = warp / sharing; row < rows.count; row += kDecodeWarps / sharing) {
    const T* x = static_cast<const T*>(args.x) + int64_t{rows.sequence[row]} * args.dim;
    T* y = normed + row * (args.dim + kPadding);
    float square = 0;
    for (int base = begin; base < vectors; base += kStatesAhead * step) {
      uint4 loaded[kStatesAhead];
#pragma unroll
      for (int a = 0; a < kStatesAhead; ++a)
        if (base + a * step < vectors) loaded[a] = shared_by_blocks(x + (base + a * step) * 8);
#pragma unroll
      for (int a = 0; a < kStatesAhead; ++a) {
        if (base + a * step >= vectors) break;
        const Vector value = vector_of<T>(loaded[a]);
#pragma unroll
        for (int i = 0; i < 8; ++i) square += to_float(value.values[i]) * to_float(value.values[i]);
        *reinterpret_cast<uint4*>(y + (base + a * step) * 8) = loaded[a];
      }
    }
    square = warp_sum(square);
    if (lane == 0) squares[row * sharing + warp % sharing] = square;
  }
  asm volatile("cp.async.wait_all;" ::: "memory");
  norm.is_there = true;
  __syncthreads();
  for (int row = warp / sharing; row < rows.count; row += kDecodeWarps / sharing) {
    float square = 0;
    for (int w = 0; w < sharing; ++w) square += squares[row * sharing + w];
    const float scale = rsqrtf(square / static_cast<float>(args.dim) + eps);
    T* y = normed + row * (args.dim + kPadding);
    for (int v = begin; v < vectors; v += step) {
      Vector value = *reinterpret_cast<const Vector*>(y + v * 8);
      const Vector w = vector_of<T>(norm.room[v]);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        value.values[i] = from_float<T>(to_float(value.values[i]) * scale * to_float(w.values[i]));
      *reinterpret_cast<Vector*>(y + v * 8) = value;
    }
  }
  __syncthreads();
}

}  // namespace fathom::cuda
