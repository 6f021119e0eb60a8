// Rows of a table, and sums of rows into it: memory-bound. Rows that are added are taken in the order of
// their ids, a chunk of them a block. Of an id whose rows lie in one chunk their sum is added to the table at
// once; of one whose rows reach over several, each chunk leaves a part, and a second kernel adds these up. So
// an id that most rows have is shared among many blocks, and every sum has one order.
#include <cmath>
#include <cub/device/device_radix_sort.cuh>

#include "cuda/awaited.cuh"
#include "cuda/embedding.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;
/// Rows of a chunk, and those that a thread reads at once.
constexpr int kChunkRows = 16, kRowsAtOnce = 4;
constexpr int kMostChunkThreads = 128;
/// Threads that add up parts: across columns, and of one column.
constexpr int kPartColumns = 32, kPartThreads = 8;

template <typename W, typename T, int kWidth>
__global__ void embedding_rows_kernel(Awaited<EmbeddingRowsArgs> awaited) {
  const EmbeddingRowsArgs& args = awaited.get();
  const RowItem item = row_item(static_cast<unsigned>(args.dim / kWidth));
  if (item.row >= args.count) return;
  const int64_t id = args.ids[item.row], column = int64_t{item.column} * kWidth;
  Elements<T, kWidth> row;
  if (id >= 0 && id < args.vocabulary) {
    const auto from = *reinterpret_cast<const Elements<W, kWidth>*>(static_cast<const W*>(args.weight) +
                                                                    id * args.dim + column);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) row.values[i] = from_float<T>(to_float(from.values[i]));
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) row.values[i] = from_float<T>(NAN);
  }
  *reinterpret_cast<Elements<T, kWidth>*>(static_cast<T*>(args.rows) + item.row * args.dim + column) = row;
}

template <typename W, typename T>
cudaError_t launch_rows(const EmbeddingRowsArgs& args, cudaStream_t stream) {
  constexpr int kWidth = Vector16<T>::kWidth;
  const auto launch = [&](auto* kernel, int width) {
    launch_awaiting(kernel, item_blocks(args.count * (args.dim / width), kThreads), kThreads, 0, stream,
                    args);
    return cudaGetLastError();
  };
  return args.dim % kWidth == 0 && are_aligned16({args.weight, args.rows})
             ? launch(embedding_rows_kernel<W, T, kWidth>, kWidth)
             : launch(embedding_rows_kernel<W, T, 1>, 1);
}

__global__ void places_kernel(Awaited<RowOrder> awaited) {
  const RowOrder& order = awaited.get();
  const int64_t place = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (place >= order.count) return;
  const int64_t id = order.ids[place];
  const bool is_one = id >= 0 && id < order.vocabulary;
  order.unsorted[place] =
      static_cast<uint64_t>(is_one ? id : order.vocabulary) << 32 | static_cast<uint64_t>(place);
}

/// `memory` null: writes the bytes that are needed.
cudaError_t sort(const RowOrder& order, void* memory, size_t& bytes, cudaStream_t stream) {
  int bits = 1;  // that hold `vocabulary`
  while (order.vocabulary >> bits != 0) ++bits;
  return cub::DeviceRadixSort::SortKeys(memory, bytes, static_cast<const uint64_t*>(order.unsorted),
                                        order.sorted, static_cast<int>(order.count), 32, 32 + bits, stream);
}

__device__ unsigned id_of(uint64_t entry) {
  return static_cast<unsigned>(entry >> 32);
}

/// What becomes of the sum that ends with a row.
enum class SumEnd : int { kNone, kTable, kFirstPart, kLastPart };

/// A chunk of sorted rows, as its block sees it.
struct ChunkRows {
  int64_t place[kChunkRows];
  unsigned id[kChunkRows];
  SumEnd end[kChunkRows];

  /// By the first threads of the block; `no_id` is that of no row.
  __device__ void fill(const RowSumArgs& args, int64_t first, int size) {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= size) return;
    constexpr unsigned kNoId = 0xffffffff;
    const uint64_t* entry = args.sorted + first + i;
    id[i] = id_of(*entry);
    place[i] = static_cast<int64_t>(*entry & 0xffffffff);
    const unsigned before = first > 0 ? id_of(args.sorted[first - 1]) : kNoId;
    const unsigned next = first + i + 1 < args.count ? id_of(entry[1]) : kNoId;
    const bool ends = next != id[i], begins_here = before != id[i];
    if (id[i] >= args.vocabulary || (!ends && i + 1 < size))
      end[i] = SumEnd::kNone;
    else if (!begins_here)
      end[i] = SumEnd::kFirstPart;
    else
      end[i] = ends ? SumEnd::kTable : SumEnd::kLastPart;
  }
};

/// Grid: x over chunks, y over columns.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kMostChunkThreads) chunk_sums_kernel(Awaited<RowSumArgs> awaited) {
  const RowSumArgs& args = awaited.get();
  __shared__ ChunkRows chunk;
  const int64_t first = int64_t{blockIdx.x} * kChunkRows;
  const int size = static_cast<int>(min(int64_t{kChunkRows}, args.count - first));
  chunk.fill(args, first, size);
  __syncthreads();
  const int64_t column = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kWidth;
  if (column >= args.dim) return;
  const T* rows = static_cast<const T*>(args.rows) + column;
  float* parts = args.parts + 2 * int64_t{blockIdx.x} * args.dim + column;
  using Sums = Elements<float, kWidth>;
  const auto in_table = [&](int i) {
    return reinterpret_cast<Sums*>(args.sum + int64_t{chunk.id[i]} * args.dim + column);
  };
  Sums sum = {};
  for (int begin = 0; begin < size; begin += kRowsAtOnce) {
    Elements<T, kWidth> row[kRowsAtOnce];
    Sums old[kRowsAtOnce];  // ids that end here are different ones
#pragma unroll
    for (int j = 0; j < kRowsAtOnce; ++j) {
      const int i = begin + j;
      if (i >= size) continue;
      row[j] = *reinterpret_cast<const Elements<T, kWidth>*>(rows + chunk.place[i] * args.dim);
      if (chunk.end[i] == SumEnd::kTable) old[j] = *in_table(i);
    }
#pragma unroll
    for (int j = 0; j < kRowsAtOnce; ++j) {
      const int i = begin + j;
      if (i >= size) continue;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum.values[k] += to_float(row[j].values[k]);
      const SumEnd end = chunk.end[i];
      if (end == SumEnd::kNone) continue;
      if (end == SumEnd::kTable) {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) old[j].values[k] += sum.values[k];
        *in_table(i) = old[j];
      } else {
        *reinterpret_cast<Sums*>(end == SumEnd::kFirstPart ? parts : parts + args.dim) = sum;
      }
      sum = {};
    }
  }
}

/// Chunks behind `chunk` that begin with `id`: at least one does.
__device__ int64_t chunks_that_follow(const RowSumArgs& args, int64_t chunk, unsigned id) {
  const int64_t chunks = (args.count + kChunkRows - 1) / kChunkRows;
  const auto begins_with_it = [&](int64_t behind) {
    const int64_t at = chunk + behind;
    return at < chunks && id_of(args.sorted[at * kChunkRows]) == id;
  };
  int64_t low = 1, high = 2;
  while (begins_with_it(high)) low = high, high *= 2;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (begins_with_it(middle) ? low : high) = middle;
  }
  return low;
}

/// Adds up the parts of the id whose rows begin in a chunk and reach into the next. Grid: x over chunks, y
/// over columns.
template <int kWidth>
__global__ void __launch_bounds__(kPartColumns* kPartThreads)
    joined_parts_kernel(Awaited<RowSumArgs> awaited) {
  const RowSumArgs& args = awaited.get();
  using Sums = Elements<float, kWidth>;
  __shared__ Sums shared[kPartThreads][kPartColumns];
  const int64_t chunk = blockIdx.x, first = chunk * kChunkRows, next = first + kChunkRows;
  if (next >= args.count) return;
  const unsigned id = id_of(args.sorted[next - 1]);
  if (id >= args.vocabulary || id_of(args.sorted[next]) != id) return;
  if (first > 0 && id_of(args.sorted[first - 1]) == id) return;
  const int64_t following = chunks_that_follow(args, chunk, id);
  const int64_t column = (int64_t{blockIdx.y} * kPartColumns + threadIdx.x) * kWidth;
  const auto part = [&](int64_t behind) {
    const int64_t place = 2 * (chunk + behind) + (behind == 0 ? 1 : 0);
    return reinterpret_cast<const Sums*>(args.parts + place * args.dim + column);
  };
  Sums sum = {};
  if (column < args.dim) {
#pragma unroll 4
    for (int64_t behind = threadIdx.y; behind <= following; behind += kPartThreads) {
      const Sums some = *part(behind);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum.values[k] += some.values[k];
    }
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= args.dim) return;
  for (int y = 1; y < kPartThreads; ++y)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum.values[k] += shared[y][threadIdx.x].values[k];
  auto* table = reinterpret_cast<Sums*>(args.sum + int64_t{id} * args.dim + column);
  Sums total = *table;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) total.values[k] += sum.values[k];
  *table = total;
}

/// The two kernels; `kPart` is the width of the second.
template <typename T, int kWidth, int kPart>
cudaError_t launch_sums(const RowSumArgs& args, cudaStream_t stream) {
  const auto chunks = static_cast<unsigned>(row_sum_chunks(args.count));
  const int64_t columns = args.dim / kWidth, warps = (columns + 31) / 32;
  const unsigned threads = static_cast<unsigned>(32 * min(warps, int64_t{kMostChunkThreads / 32}));
  launch_awaiting(chunk_sums_kernel<T, kWidth>, dim3(chunks, item_blocks(columns, static_cast<int>(threads))),
                  threads, 0, stream, args);
  launch_awaiting(joined_parts_kernel<kPart>, dim3(chunks, item_blocks(args.dim / kPart, kPartColumns)),
                  dim3(kPartColumns, kPartThreads), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_embedding_rows(ElementType weight, ElementType rows, const EmbeddingRowsArgs& args,
                                  cudaStream_t stream) {
  return with_element_but_double(rows, [&](auto element) {
    using T = decltype(element);
    if (weight == ElementType::kFloat) return launch_rows<float, T>(args, stream);
    return weight == rows ? launch_rows<T, T>(args, stream) : cudaErrorInvalidValue;
  });
}

cudaError_t row_order_bytes(const RowOrder& order, size_t& bytes) {
  return sort(order, nullptr, bytes, nullptr);
}

cudaError_t launch_row_order(const RowOrder& order, void* memory, size_t bytes, cudaStream_t stream) {
  launch_awaiting(places_kernel, item_blocks(order.count, kThreads), kThreads, 0, stream, order);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  return sort(order, memory, bytes, stream);
}

int64_t row_sum_chunks(int64_t count) {
  return (count + kChunkRows - 1) / kChunkRows;
}

cudaError_t launch_row_sums(ElementType type, const RowSumArgs& args, cudaStream_t stream) {
  return with_element_but_double(type, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = Vector16<T>::kWidth;
    return args.dim % kWidth == 0 && are_aligned16({args.rows, args.sum, args.parts})
               ? launch_sums<T, kWidth, 4>(args, stream)
               : launch_sums<T, 1, 1>(args, stream);
  });
}

}  // namespace fathom::cuda
