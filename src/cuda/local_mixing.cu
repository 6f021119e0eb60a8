// Depthwise convolutions of 3 × 3 over maps whose channels lie side by side: memory-bound. A thread takes
// four channels of two neighbouring columns and walks down a strip of rows; what a row gives to the rows
// above and below it is added while it is at hand, so each row is read once by its columns' threads.
#include "cuda/local_mixing.h"

#include <algorithm>

#include "cuda/awaited.cuh"
#include "cuda/vectors.cuh"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWide = 4;              ///< channels of a thread
constexpr int kColumns = 2;           ///< of a thread
constexpr int kHigh = 10;             ///< rows of a strip
constexpr int kReach = kColumns + 2;  ///< columns that a thread's columns see
/// Rows on their way at once: as many as registers hold.
template <typename T>
constexpr int kAhead = sizeof(T) == 2 ? 3 : 1;

/// Columns of a strip of a sample's rows.
struct Strip {
  int64_t sample;
  int first_row, rows, column;
};

struct Strips {
  int wide;          ///< columns of a strip
  int high, across;  ///< in a sample
  int64_t count;

  __host__ __device__ Strips(const MapShape& shape, int columns)
      : wide(columns),
        high(static_cast<int>((shape.height + kHigh - 1) / kHigh)),
        across(static_cast<int>((shape.width + columns - 1) / columns)),
        count(shape.samples * high * across) {}

  __device__ Strip at(int64_t index, const MapShape& shape) const {
    const int64_t line = index / across;
    const int first = static_cast<int>(line % high) * kHigh;
    return {line / high, first, min(kHigh, static_cast<int>(shape.height) - first),
            static_cast<int>(index - line * across) * wide};
  }
};

/// Neighbouring channels as they lie in memory: words, which the compiler keeps whole.
template <typename T>
using Words = Elements<uint32_t, kWide * sizeof(T) / sizeof(uint32_t)>;

/// Rows of a map as a thread sees them, one after another.
template <typename T, int kCount>
struct RowReader {
  using Vector = Words<T>;
  const Vector* at;  ///< of the next row, at the thread's channels and first column
  int left, first;   ///< rows until the first that is read, and the last
  int step, wide;    ///< vectors from a row to the next, and from a column
  bool there[kCount];

  /// Reads rows from `row` on; those that lie outside of [low, high) are zeros.
  __device__ RowReader(const void* map, const MapShape& shape, const Strip& strip, int column, int row,
                       int low, int high, int64_t vector)
      : left(high - row),
        first(high - low),
        step(static_cast<int>(shape.width * (shape.channels / kWide))),
        wide(static_cast<int>(shape.channels / kWide)) {
    at = static_cast<const Vector*>(map) + vector +
         ((strip.sample * shape.height + row) * shape.width + column) * wide;
#pragma unroll
    for (int c = 0; c < kCount; ++c) there[c] = column + c >= 0 && column + c < shape.width;
  }

  __device__ void read(Vector (&to)[kCount]) {
    const bool inside = left > 0 && left <= first;
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      to[c] = Vector{};
      if (inside && there[c]) to[c] = at[c * wide];
    }
    at += step;
    --left;
  }
};

template <typename T, int kCount>
__device__ void widen(const Words<T> (&from)[kCount], float (&to)[kCount][kWide]) {
#pragma unroll
  for (int c = 0; c < kCount; ++c)
#pragma unroll
    for (int i = 0; i < Words<T>::kWidth; ++i) {
      if constexpr (sizeof(T) == sizeof(float)) {
        to[c][i] = __uint_as_float(from[c].values[i]);
      } else {
        const float2 pair = widened_pair<T>(from[c].values[i]);
        to[c][2 * i] = pair.x;
        to[c][2 * i + 1] = pair.y;
      }
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) mixing_kernel(Awaited<LocalMixingArgs> awaited) {
  const LocalMixingArgs& args = awaited.get();
  using Vector = Elements<T, kWide>;
  const int64_t vectors = args.shape.channels / kWide;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x, vector = item % vectors;
  const Strips strips(args.shape, kColumns);
  if (item / vectors >= strips.count) return;
  const Strip strip = strips.at(item / vectors, args.shape);
  float weight[kMixingSide][kMixingSide][kWide], bias[kWide];
#pragma unroll
  for (int i = 0; i < kWide; ++i) {
    const int64_t channel = vector * kWide + i;
#pragma unroll
    for (int place = 0; place < kMixingPlaces; ++place) {
      const int from = args.turned ? kMixingPlaces - 1 - place : place;
      weight[place / kMixingSide][place % kMixingSide][i] = args.weight[channel * kMixingPlaces + from];
    }
    weight[1][1][i] += 1;  // x itself
    bias[i] = args.bias != nullptr ? args.bias[channel] : 0.0f;
  }
  const int height = static_cast<int>(args.shape.height), width = static_cast<int>(args.shape.width);
  const int begin = strip.first_row - 1, end = strip.first_row + strip.rows;
  RowReader<T, kReach> reader(args.x, args.shape, strip, strip.column - 1, begin, max(begin, 0),
                              min(end + 1, height), vector);
  auto* to = static_cast<Vector*>(args.y) + vector +
             ((strip.sample * height + strip.first_row) * width + strip.column) * vectors;
  const bool second = strip.column + 1 < width;
  float above[kColumns][kWide], here[kColumns][kWide], below[kColumns][kWide];  // sums of three rows
#pragma unroll
  for (int c = 0; c < kColumns; ++c)
#pragma unroll
    for (int i = 0; i < kWide; ++i) above[c][i] = here[c][i] = bias[i];
  Words<T> next[kAhead<T>][kReach];
#pragma unroll
  for (int ahead = 0; ahead < kAhead<T>; ++ahead) reader.read(next[ahead]);
#pragma unroll(kAhead <T>)  // so that places in `next` are known
  for (int turn = 0; turn < kHigh + 2; ++turn) {
    const int row = begin + turn;
    if (row > end) break;
    float x[kReach][kWide];
    widen<T, kReach>(next[turn % kAhead<T>], x);
    reader.read(next[turn % kAhead<T>]);
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        float sum = bias[i];
#pragma unroll
        for (int k = 0; k < kMixingSide; ++k) {
          above[c][i] += weight[2][k][i] * x[c + k][i];
          here[c][i] += weight[1][k][i] * x[c + k][i];
          sum += weight[0][k][i] * x[c + k][i];
        }
        below[c][i] = sum;
      }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (turn > 1 && (c == 0 || second)) {
        Vector y;
#pragma unroll
        for (int i = 0; i < kWide; ++i) y.values[i] = from_float<T>(above[c][i]);
        to[c * vectors] = y;
      }
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        above[c][i] = here[c][i];
        here[c][i] = below[c][i];
      }
    }
    if (turn > 1) to += width * vectors;
  }
}

constexpr int kLanes = 8;                  ///< neighbouring threads with neighbouring channels
constexpr int kItems = kThreads / kLanes;  ///< strips that a block takes at once
constexpr int kSums = kMixingPlaces + 1;   ///< of a channel
constexpr int kWarps = kThreads / 32;
constexpr int kGradColumns = 1;  ///< of a thread: sums want registers
constexpr int kGradReach = kGradColumns + 2;

/// Sums over the lanes of a warp with equal channels; in the first of them.
__device__ float sum_of_items(float x) {
#pragma unroll
  for (int step = kLanes; step < 32; step *= 2) x += __shfl_xor_sync(0xffffffff, x, step);
  return x;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) mixing_grad_kernel(Awaited<LocalMixingGradArgs> awaited) {
  const LocalMixingGradArgs& args = awaited.get();
  using Vector = Elements<T, kWide>;
  __shared__ float shared[kWarps][kLanes][kSums][kWide];
  const int lane = static_cast<int>(threadIdx.x) % kLanes, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t vectors = args.shape.channels / kWide, vector = int64_t{blockIdx.y} * kLanes + lane;
  const Strips strips(args.shape, kGradColumns);
  float sums[kSums][kWide] = {};
  const int64_t first = int64_t{blockIdx.x} * kItems + threadIdx.x / kLanes;
  for (int64_t index = first; vector < vectors && index < strips.count;
       index += int64_t{gridDim.x} * kItems) {
    const Strip strip = strips.at(index, args.shape);
    const int height = static_cast<int>(args.shape.height);
    const int begin = strip.first_row - 1, end = strip.first_row + strip.rows;
    RowReader<T, kGradReach> x_reader(args.x, args.shape, strip, strip.column - 1, begin, max(begin, 0),
                                      min(end + 1, height), vector);
    RowReader<T, kGradColumns> grad_reader(args.grad, args.shape, strip, strip.column, strip.first_row,
                                           strip.first_row, end, vector);
    // Gradients of the rows above, at and below the row of x that is at hand; zeros outside of the strip.
    float above[kGradColumns][kWide] = {}, here[kGradColumns][kWide] = {}, below[kGradColumns][kWide];
    Words<T> next_x[kAhead<T>][kGradReach], next_grad[kAhead<T>][kGradColumns];
#pragma unroll
    for (int ahead = 0; ahead < kAhead<T>; ++ahead)
      x_reader.read(next_x[ahead]), grad_reader.read(next_grad[ahead]);
#pragma unroll
    for (int turn = 0; turn < kHigh + 2; ++turn) {
      const int row = begin + turn;
      if (row > end) break;
      float x[kGradReach][kWide];
      widen<T, kGradReach>(next_x[turn % kAhead<T>], x);
      widen<T, kGradColumns>(next_grad[turn % kAhead<T>], below);
      x_reader.read(next_x[turn % kAhead<T>]);
      grad_reader.read(next_grad[turn % kAhead<T>]);
#pragma unroll
      for (int c = 0; c < kGradColumns; ++c)
#pragma unroll
        for (int i = 0; i < kWide; ++i) {
#pragma unroll
          for (int k = 0; k < kMixingSide; ++k) {
            sums[k][i] += below[c][i] * x[c + k][i];
            sums[kMixingSide + k][i] += here[c][i] * x[c + k][i];
            sums[2 * kMixingSide + k][i] += above[c][i] * x[c + k][i];
          }
          sums[kMixingPlaces][i] += below[c][i];
          above[c][i] = here[c][i];
          here[c][i] = below[c][i];
        }
    }
  }
#pragma unroll
  for (int s = 0; s < kSums; ++s)
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      const float sum = sum_of_items(sums[s][i]);
      if (threadIdx.x % 32 < kLanes) shared[warp][lane][s][i] = sum;
    }
  __syncthreads();
  float* partial = args.partial + int64_t{blockIdx.x} * args.shape.channels * kSums;
  for (int place = threadIdx.x; place < kLanes * kSums * kWide; place += kThreads) {
    const int of_lane = place / (kSums * kWide), s = place / kWide % kSums, i = place % kWide;
    const int64_t channel = (int64_t{blockIdx.y} * kLanes + of_lane) * kWide + i;
    if (channel >= args.shape.channels) continue;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += shared[w][of_lane][s][i];
    if (s < kMixingPlaces)
      partial[channel * kMixingPlaces + s] = total;
    else
      partial[args.shape.channels * kMixingPlaces + channel] = total;
  }
}

template <typename T>
cudaError_t mixing(const LocalMixingArgs& args, cudaStream_t stream) {
  const int64_t items = Strips(args.shape, kColumns).count * (args.shape.channels / kWide);
  launch_awaiting(mixing_kernel<T>, item_blocks(items, kThreads), kThreads, 0, stream, args);
  return cudaGetLastError();
}

int64_t lane_groups(const MapShape& shape) {
  return (shape.channels / kWide + kLanes - 1) / kLanes;
}

template <typename T>
cudaError_t mixing_grad(const LocalMixingGradArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.parts), static_cast<unsigned>(lane_groups(args.shape)));
  launch_awaiting(mixing_grad_kernel<T>, grid, kThreads, 0, stream, args);
  return cudaGetLastError();
}

}  // namespace

bool local_mixing_fits(ElementType type, const MapShape& shape) {
  constexpr int64_t kMost = int64_t{1} << 20;
  return type != ElementType::kDouble && shape.samples > 0 && shape.height > 0 && shape.width > 0 &&
         shape.height < kMost && shape.width < kMost && shape.channels > 0 && shape.channels % kWide == 0 &&
         shape.channels / (kWide * kLanes) < 65535;
}

int64_t local_mixing_parts_of(const MapShape& shape) {
  constexpr int64_t kBlocks = 4 * kMultiprocessors;
  const int64_t turns = (Strips(shape, kGradColumns).count + kItems - 1) / kItems;
  return std::clamp<int64_t>(kBlocks / lane_groups(shape), 1, turns);
}

cudaError_t launch_local_mixing(ElementType type, const LocalMixingArgs& args, cudaStream_t stream) {
  if (!local_mixing_fits(type, args.shape)) return cudaErrorInvalidValue;
  return with_element_but_double(type, [&](auto element) { return mixing<decltype(element)>(args, stream); });
}

cudaError_t launch_local_mixing_grad(ElementType type, const LocalMixingGradArgs& args, cudaStream_t stream) {
  if (!local_mixing_fits(type, args.shape) || args.parts < 1) return cudaErrorInvalidValue;
  return with_element_but_double(type,
                                 [&](auto element) { return mixing_grad<decltype(element)>(args, stream); });
}

}  // namespace fathom::cuda
