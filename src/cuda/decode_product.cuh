// Products of few rows with weights that stream from memory: a block computes 16 columns at a time on tensor
// cores, its warps share the depth. The weights' rows take the place of a tile's rows and the sequences that
// of its columns, so up to 8 sequences cost what one does.
#pragma once

#include "cuda/decode_layers.h"
#include "cuda/vectors.cuh"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {

constexpr int kDecodeThreads = 256;
constexpr int kDecodeWarps = kDecodeThreads / 32;
constexpr int kTileRows = 16;   ///< columns of a product that a block computes at once
constexpr int kTileTokens = 8;  ///< sequences of one tensor core instruction
constexpr int kChunk = 64;      ///< of a product's depth that a warp takes at once
constexpr int kPadding = 32;    ///< elements between rows in shared memory: no two lanes meet in a bank

/// Of weights that no other block reads, past the first cache.
__device__ uint4 streamed(const void* pointer) {
  uint4 value;
  asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
      : "l"(pointer));
  return value;
}

/// Of what other blocks wrote in this launch.
__device__ uint4 shared_by_blocks(const void* pointer) {
  return __ldcg(static_cast<const uint4*>(pointer));
}

template <typename T>
__device__ Vector16<T> vector_of(const uint4& bits) {
  return reinterpret_cast<const Vector16<T>&>(bits);
}

/// What a block keeps of the sequences that compute the present layer.
struct Rows {
  int sequence[kMaxDecodeBatch];
  int count;
};

/// rms_norm of some sequences' states, into shared memory: a row by `kRowWarps` warps. With more than one
/// warp to a row there are no more rows than all warps take at once.
template <typename T, int kRowWarps>
__device__ void load_normed_rows(T* normed, const DecodeArgs& args, const Rows& rows,
                                 const void* weight_of_norm, float eps) {
  using Vector = Vector16<T>;
  constexpr int kLanes = 32 * kRowWarps;
  __shared__ float squares[kDecodeWarps];
  const int lane = static_cast<int>(threadIdx.x) % kLanes, vectors = args.dim / 8;
  const auto* weight = static_cast<const Vector*>(weight_of_norm);
  for (int row = static_cast<int>(threadIdx.x) / kLanes; row < rows.count; row += kDecodeWarps / kRowWarps) {
    const T* x = static_cast<const T*>(args.x) + int64_t{rows.sequence[row]} * args.dim;
    T* y = normed + row * (args.dim + kPadding);
    Vector first_weight = {};  // on its way with the states
    if (lane < vectors) first_weight = weight[lane];
    float square = 0;
    for (int v = lane; v < vectors; v += kLanes) {
      const uint4 loaded = shared_by_blocks(x + v * 8);
      const Vector value = vector_of<T>(loaded);
#pragma unroll
      for (int i = 0; i < 8; ++i) square += to_float(value.values[i]) * to_float(value.values[i]);
      *reinterpret_cast<uint4*>(y + v * 8) = loaded;
    }
    square = warp_sum(square);
    if constexpr (kRowWarps > 1) {
      const int warp = static_cast<int>(threadIdx.x) / 32, first = warp / kRowWarps * kRowWarps;
      if (threadIdx.x % 32 == 0) squares[warp] = square;
      __syncthreads();
      square = 0;
#pragma unroll
      for (int other = 0; other < kRowWarps; ++other) square += squares[first + other];
    }
    const float scale = rsqrtf(square / static_cast<float>(args.dim) + eps);
    for (int v = lane; v < vectors; v += kLanes) {
      Vector value = *reinterpret_cast<const Vector*>(y + v * 8);
      const Vector w = v == lane ? first_weight : weight[v];
#pragma unroll
      for (int i = 0; i < 8; ++i)
        value.values[i] = from_float<T>(to_float(value.values[i]) * scale * to_float(w.values[i]));
      *reinterpret_cast<Vector*>(y + v * 8) = value;
    }
  }
  __syncthreads();
}

/// The same: a warp a row, and of one row all warps.
template <typename T>
__device__ void load_normed(T* normed, const DecodeArgs& args, const Rows& rows, const void* weight_of_norm,
                            float eps) {
  if (rows.count == 1)
    load_normed_rows<T, kDecodeWarps>(normed, args, rows, weight_of_norm, eps);
  else
    load_normed_rows<T, 1>(normed, args, rows, weight_of_norm, eps);
}

/// A product's columns, `kTileRows` of them a job: the first half of job j are rows j · step … of the weight,
/// the second begins `high` rows behind.
struct Columns {
  const void* weight;
  int jobs;
  int depth;
  int step;
  int high;
  int first_block = 0;  ///< which has the first job

  __device__ int first_job() const {
    return static_cast<int>((blockIdx.x + gridDim.x - first_block) % gridDim.x);
  }
};

/// Weights that a warp has asked for ahead, in the order in which its lanes will take them: each lane finds
/// what it asked for itself, so nobody else has to be waited for.
struct Stage {
  uint4* room;                   ///< [units, kPieces, 32] of this warp
  int units;                     ///< chunks of `kTileRows` × `kChunk` elements
  const void* weight = nullptr;  ///< whose chunks are there or on their way
};
constexpr int kPieces = kTileRows * kChunk * 2 / 16 / 32;  ///< vectors of a chunk that a lane takes

/// A lane's part of one chunk: 32 elements of two rows.
template <typename T>
struct ChunkPlace {
  const T* low;
  const T* high;

  __device__ ChunkPlace(const Columns& columns, int job) {
    const int lane = threadIdx.x % 32;
    low = static_cast<const T*>(columns.weight) + (int64_t{job} * columns.step + lane / 4) * columns.depth +
          lane % 4 * 8;
    high = low + int64_t{columns.high} * columns.depth;
  }
  __device__ const T* piece(int i, int k) const { return (i < 2 ? low : high) + k + i % 2 * (kChunk / 2); }
};

__device__ inline void copy_ahead(uint4* to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from));
}

/// Asks for this block's part of a product's weights, as far as there is room.
template <typename T>
__device__ void stage_weights(const Columns& columns, Stage& stage) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int unit = 0;
  for (int job = columns.first_job(); job < columns.jobs; job += gridDim.x) {
    const ChunkPlace<T> place(columns, job);
    for (int k = warp * kChunk; k < columns.depth && unit < stage.units; k += kDecodeWarps * kChunk, ++unit)
#pragma unroll
      for (int i = 0; i < kPieces; ++i)
        copy_ahead(stage.room + (unit * kPieces + i) * 32 + lane, place.piece(i, k));
  }
  stage.weight = columns.weight;
}

/// sum += of half a chunk of weights, and of the states that it is multiplied with.
template <typename T>
__device__ void multiply_piece(float (&sum)[4], const uint4 (&w)[kPieces], int half, const uint4& x) {
  multiply_add<T>(sum, {w[half].x, w[half + 2].x, w[half].y, w[half + 2].y}, x.x, x.y);
  multiply_add<T>(sum, {w[half].z, w[half + 2].z, w[half].w, w[half + 2].w}, x.z, x.w);
}

/// W x for `count` sequences: a block a job, its warps share the depth. `input(row, k)` points to 8 elements;
/// `store(job, column, row, sum, other)` gets sums of both halves where these are pairs (`kPairs`), otherwise
/// of one column. `sums`: [warps, kTileRows, kTiles · 8] in shared memory.
template <typename T, int kTiles, bool kPairs, typename Input, typename Store>
__device__ void product(const Columns& columns, int count, float* sums, Stage& stage, const Input& input,
                        const Store& store) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, part = lane % 4;
  constexpr int kWide = kTiles * kTileTokens, kStep = kDecodeWarps * kChunk, kChunksAhead = 4;
  const int staged = stage.weight == columns.weight ? stage.units : 0;
  await_all_copies();
  stage.weight = nullptr;
  int unit = 0;
  for (int job = columns.first_job(); job < columns.jobs; job += gridDim.x) {
    const ChunkPlace<T> place(columns, job);
    float sum[kTiles][4] = {};
    const auto add_chunk = [&](const uint4(&w)[kPieces], int k) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if (tile * kTileTokens >= count) break;
        const int row = tile * kTileTokens + group;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint4 x = {0, 0, 0, 0};
          if (row < count) x = input(row, k + half * (kChunk / 2) + part * 8);
          multiply_piece<T>(sum[tile], w, half, x);
        }
      }
    };
    int k = warp * kChunk;
    if constexpr (kTiles == 1) {
      // States come from other multiprocessors: those of several chunks are asked for at once.
      while (k < columns.depth && unit < staged) {
        const int ready = min(kChunksAhead, staged - unit);
        uint4 x[kChunksAhead][2] = {};
#pragma unroll
        for (int a = 0; a < kChunksAhead; ++a) {
          const int at = k + a * kStep;
          if (a >= ready || at >= columns.depth || group >= count) continue;
#pragma unroll
          for (int half = 0; half < 2; ++half) x[a][half] = input(group, at + half * (kChunk / 2) + part * 8);
        }
#pragma unroll
        for (int a = 0; a < kChunksAhead; ++a) {
          if (a >= ready || k >= columns.depth) continue;
          uint4 w[kPieces];
#pragma unroll
          for (int i = 0; i < kPieces; ++i) w[i] = stage.room[(unit * kPieces + i) * 32 + lane];
#pragma unroll
          for (int half = 0; half < 2; ++half) multiply_piece<T>(sum[0], w, half, x[a][half]);
          k += kStep;
          ++unit;
        }
      }
    } else {
      for (; k < columns.depth && unit < staged; k += kStep, ++unit) {
        uint4 w[kPieces];
#pragma unroll
        for (int i = 0; i < kPieces; ++i) w[i] = stage.room[(unit * kPieces + i) * 32 + lane];
        add_chunk(w, k);
      }
    }
#pragma unroll 2
    for (; k < columns.depth; k += kStep) {
      uint4 w[kPieces];
#pragma unroll
      for (int i = 0; i < kPieces; ++i) w[i] = streamed(place.piece(i, k));
      add_chunk(w, k);
    }
    float* own = sums + warp * kTileRows * kWide;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (tile * kTileTokens >= count) break;
      const int row = tile * kTileTokens + part * 2;
      own[group * kWide + row] = sum[tile][0];
      own[group * kWide + row + 1] = sum[tile][1];
      own[(group + 8) * kWide + row] = sum[tile][2];
      own[(group + 8) * kWide + row + 1] = sum[tile][3];
    }
    __syncthreads();
    const auto total = [&](int column, int row) {
      float value = 0;
#pragma unroll
      for (int w = 0; w < kDecodeWarps; ++w) value += sums[(w * kTileRows + column) * kWide + row];
      return value;
    };
    constexpr int kStored = kPairs ? kTileRows / 2 : kTileRows;
    for (int i = threadIdx.x; i < kStored * count; i += kDecodeThreads) {
      const int column = i % kStored, row = i / kStored;
      store(job * kStored + column, row, total(column, row), kPairs ? total(column + 8, row) : 0.0f);
    }
    __syncthreads();
  }
}

/// Asks for small weights that all blocks will read, so that they are near by then. Of one block.
__device__ inline void prefetch_bytes(const void* begin, int bytes) {
  for (int at = static_cast<int>(threadIdx.x) * 128; at < bytes; at += kDecodeThreads * 128)
    read_ahead(static_cast<const char*>(begin) + at);
}

/// Asks for the weights of this block's jobs, so that they are near when the blocks have met.
template <typename T>
__device__ void prefetch(const Columns& columns) {
  const int lines = columns.depth * static_cast<int>(sizeof(T)) / 128;
  for (int job = columns.first_job(); job < columns.jobs; job += gridDim.x) {
    for (int i = threadIdx.x; i < kTileRows * lines; i += kDecodeThreads) {
      const int row = i / lines;
      const int64_t at = int64_t{job} * columns.step + row % 8 + (row < 8 ? 0 : columns.high);
      const char* line =
          static_cast<const char*>(columns.weight) + at * columns.depth * sizeof(T) + i % lines * 128;
      read_ahead(line);
    }
  }
}

__device__ Columns plain_columns(const void* weight, int out, int depth) {
  return {weight, out / kTileRows, depth, kTileRows, 8};
}

}  // namespace fathom::cuda
