// Products of few rows with weights that stream from memory: a block computes 16 columns at a time on tensor
// cores, its warps share the depth. The weights' rows take the place of a tile's rows and the sequences that
// of its columns, so up to 8 sequences cost what one does.
#pragma once

#include <type_traits>

#include "cuda/decode_layers.h"
#include "cuda/vectors.cuh"

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

__device__ inline void prefetch_line(const void* line) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(line));
}

/// Of what other blocks wrote in this launch.
__device__ uint4 shared_by_blocks(const void* pointer) {
  return __ldcg(static_cast<const uint4*>(pointer));
}

template <typename T>
__device__ Vector16<T> vector_of(const uint4& bits) {
  return reinterpret_cast<const Vector16<T>&>(bits);
}

template <typename T>
__device__ void multiply(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                         unsigned b1) {
  if constexpr (std::is_same_v<T, __half>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// How a job fills a tile's rows.
enum class Job {
  kWide,    ///< 16 columns
  kPairs,   ///< 8 columns, and the 8 that they are paired with
  kNarrow,  ///< 8 columns: the tile stays half empty, but twice as many blocks have a part of the weights
};

/// A product's columns, a tile of them a job: the first half of job j are rows j · step … of the weight, the
/// second begins `high` rows behind, or is empty where that is 0.
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
  uint4* room;                   ///< [pieces, 32] of this warp
  int pieces;                    ///< a lane's vectors
  const void* weight = nullptr;  ///< whose chunks are there or on their way
};
constexpr int kPieces =
    kTileRows * kChunk * 2 / 16 / 32;  ///< vectors of a full tile's chunk that a lane takes

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
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from));
}

/// Asks for this block's part of a product's weights, as far as there is room.
template <typename T>
__device__ void stage_weights(const Columns& columns, Stage& stage) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int pieces = columns.high == 0 ? kPieces / 2 : kPieces;
  int at = 0;
  for (int job = columns.first_job(); job < columns.jobs; job += gridDim.x) {
    const ChunkPlace<T> place(columns, job);
    for (int k = warp * kChunk; k < columns.depth && at + pieces <= stage.pieces;
         k += kDecodeWarps * kChunk, at += pieces)
#pragma unroll
      for (int i = 0; i < kPieces; ++i)
        if (i < pieces) copy_ahead(stage.room + (at + i) * 32 + lane, place.piece(i, k));
  }
  stage.weight = columns.weight;
}

/// Jobs whose sums a block makes before its warps add them up.
constexpr __host__ __device__ int jobs_together(int tiles) {
  return tiles == 1 ? 4 : 1;
}

/// W x for `count` sequences: a block a job, its warps share the depth. `input(row, k)` points to 8 elements;
/// `store(column, row, sum, other)` gets the sums of both columns of a pair; else `other` is what
/// `fetch(column, row)` found, which narrow jobs ask for before they multiply.
/// `sums`: [jobs_together, warps, kTileRows, kTiles · 8] in shared memory.
template <typename T, int kTiles, Job kJob, typename Input, typename Fetch, typename Store>
__device__ void product(const Columns& columns, int count, float* sums, Stage& stage, const Input& input,
                        const Fetch& fetch, const Store& store) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, part = lane % 4;
  constexpr bool kIsNarrow = kJob == Job::kNarrow, kIsPaired = kJob == Job::kPairs;
  constexpr int kWide = kTiles * kTileTokens, kTogether = jobs_together(kTiles);
  constexpr int kTaken = kIsNarrow ? kPieces / 2 : kPieces;
  constexpr int kStored = kJob == Job::kWide ? kTileRows : kTileRows / 2;
  constexpr int kChains = kTiles == 1 ? 2 : 1;  // sums that do not wait for one another
  static_assert(!kIsNarrow || kTogether * kStored * kWide <= kDecodeThreads);
  const int staged = stage.weight == columns.weight ? stage.pieces : 0;
  asm volatile("cp.async.wait_all;" ::: "memory");
  stage.weight = nullptr;
  int at = 0;
  const int blocks = static_cast<int>(gridDim.x);
  for (int first = columns.first_job(); first < columns.jobs; first += kTogether * blocks) {
    const int found = min(kTogether, (columns.jobs - 1 - first) / blocks + 1);
    const int results = found * count * kStored;
    const auto column_of = [&](int i) {
      return (first + i / kStored / count * blocks) * kStored + i % kStored;
    };
    const auto row_of = [&](int i) { return i / kStored % count; };
    const int own_result = static_cast<int>(threadIdx.x);
    float fetched = 0;
    if (kIsNarrow && own_result < results) fetched = fetch(column_of(own_result), row_of(own_result));
    for (int j = 0; j < found; ++j) {
      const ChunkPlace<T> place(columns, first + j * blocks);
      float sum[kTiles][kChains][4] = {};
      const auto add_chunk = [&](const uint4(&w)[kTaken], int k) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          if (tile * kTileTokens >= count) break;
          const int row = tile * kTileTokens + group;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            uint4 x = {0, 0, 0, 0}, high = {0, 0, 0, 0};
            if (row < count) x = input(row, k + half * (kChunk / 2) + part * 8);
            if constexpr (!kIsNarrow) high = w[half + 2];
            multiply<T>(sum[tile][half % kChains], w[half].x, high.x, w[half].y, high.y, x.x, x.y);
            multiply<T>(sum[tile][half % kChains], w[half].z, high.z, w[half].w, high.w, x.z, x.w);
          }
        }
      };
      int k = warp * kChunk;
      for (; k < columns.depth && at + kTaken <= staged; k += kDecodeWarps * kChunk, at += kTaken) {
        uint4 w[kTaken];
#pragma unroll
        for (int i = 0; i < kTaken; ++i) w[i] = stage.room[(at + i) * 32 + lane];
        add_chunk(w, k);
      }
#pragma unroll 2
      for (; k < columns.depth; k += kDecodeWarps * kChunk) {
        uint4 w[kTaken];
#pragma unroll
        for (int i = 0; i < kTaken; ++i) w[i] = streamed(place.piece(i, k));
        add_chunk(w, k);
      }
      float* own = sums + (j * kDecodeWarps + warp) * kTileRows * kWide;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if (tile * kTileTokens >= count) break;
        const int row = tile * kTileTokens + part * 2;
        const auto chains = [&](int i) {
          return kChains == 1 ? sum[tile][0][i] : sum[tile][0][i] + sum[tile][kChains - 1][i];
        };
        own[group * kWide + row] = chains(0);
        own[group * kWide + row + 1] = chains(1);
        if constexpr (kIsNarrow) continue;
        own[(group + 8) * kWide + row] = chains(2);
        own[(group + 8) * kWide + row + 1] = chains(3);
      }
    }
    __syncthreads();
    const auto total = [&](int i, int high) {
      const int j = i / kStored / count, column = i % kStored + high;
      float value = 0;
#pragma unroll
      for (int w = 0; w < kDecodeWarps; ++w)
        value += sums[((j * kDecodeWarps + w) * kTileRows + column) * kWide + row_of(i)];
      return value;
    };
    for (int i = own_result; i < results; i += kDecodeThreads) {
      const int column = column_of(i), row = row_of(i);
      float other = fetched;
      if constexpr (kIsPaired) other = total(i, kTileRows / 2);
      if constexpr (kJob == Job::kWide) other = fetch(column, row);
      store(column, row, total(i, 0), other);
    }
    __syncthreads();
  }
}

/// Asks for the weights of this block's jobs, so that they are near when the blocks have met.
template <typename T>
__device__ void prefetch(const Columns& columns) {
  const int lines = columns.depth * static_cast<int>(sizeof(T)) / 128;
  const int rows = columns.high == 0 ? kTileRows / 2 : kTileRows;
  for (int job = columns.first_job(); job < columns.jobs; job += gridDim.x) {
    for (int i = threadIdx.x; i < rows * lines; i += kDecodeThreads) {
      const int row = i / lines;
      const int64_t at = int64_t{job} * columns.step + row % 8 + (row < 8 ? 0 : columns.high);
      const char* line =
          static_cast<const char*>(columns.weight) + at * columns.depth * sizeof(T) + i % lines * 128;
      prefetch_line(line);
    }
  }
}

/// How a product without pairs shares its columns: up to 8 sequences are bound by the weights, so narrow.
template <int kTiles>
constexpr Job kSingle = kTiles == 1 ? Job::kNarrow : Job::kWide;

template <int kTiles>
__device__ Columns single_columns(const void* weight, int out, int depth) {
  if constexpr (kSingle<kTiles> == Job::kNarrow)
    return {weight, out / (kTileRows / 2), depth, kTileRows / 2, 0};
  return {weight, out / kTileRows, depth, kTileRows, kTileRows / 2};
}

}  // namespace fathom::cuda
