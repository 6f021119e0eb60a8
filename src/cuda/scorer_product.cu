// The product of a causal gate's scorer: a tile of tokens is multiplied while it is on its way past, and its
// norm is made of the same elements, W (x · r · g) = r · (W · g) x with r the inverse root mean square of a
// row and g the norm's weight, so nothing is read twice or written in between.
#include "cuda/scorer_product.h"

#include "cuda/awaited.cuh"
#include "cuda/vectors.cuh"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {
namespace {

constexpr int kProductThreads = 256;
constexpr int kProductWarps = kProductThreads / 32;
constexpr int kDepth = 64;  ///< of the reduction that a stage holds: lines of 128 bytes
constexpr int kStages = 4;  ///< on their way at once
constexpr int kLineBytes = 128;
constexpr int kLinesAtOnce = kProductThreads / 8;  ///< that the block copies, a thread a piece of 16 bytes
constexpr int kWarpRows = kScoreChunk;             ///< of a warp: its sums of columns are a chunk's

/// A block's rows and columns, and how its warps share them.
template <int kRows_, int kColumns_>
struct ProductTile {
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kDown = kRows / kWarpRows, kAcross = kProductWarps / kDown;
  static constexpr int kWarpColumns = kColumns / kAcross;
  /// Rows of x, rows of the projection, and the norm's weight.
  static constexpr int kStageBytes = (kRows + kColumns + 1) * kLineBytes;
  static constexpr int kBytes = kStages * kStageBytes;
  static_assert(kRows % kLinesAtOnce == 0 && kColumns % kLinesAtOnce == 0 && kWarpColumns % 16 == 0);
};
using LargeTile = ProductTile<128, 128>;
using SmallTile = ProductTile<64, 64>;

/// Where a piece of a stage's line lies: eight lines' equal pieces lie in all banks.
__device__ uint32_t place_of(int line, int piece) {
  return static_cast<uint32_t>(line * kLineBytes + ((piece ^ (line & 7)) << 4));
}

/// What a thread copies of each stage: one piece of every 32nd line.
template <typename T, typename Tile>
struct StageCopy {
  const T *x, *project, *norm;
  int64_t dim;
  int rows;         ///< of the tile that are there, from this thread's line on
  uint32_t stages;  ///< where the first begins

  __device__ StageCopy(const ScorerProductArgs& args, int first, uint32_t begin)
      : dim(args.dim), stages(begin) {
    const int line = static_cast<int>(threadIdx.x) / 8, column = static_cast<int>(threadIdx.x) % 8 * 8;
    x = static_cast<const T*>(args.x) + (blockIdx.z * args.tokens + first + line) * dim + column;
    project =
        static_cast<const T*>(args.project) + (int64_t{blockIdx.y} * Tile::kColumns + line) * dim + column;
    norm = static_cast<const T*>(args.norm) + column;
    rows = static_cast<int>(min(args.tokens - first, int64_t{Tile::kRows})) - line;
  }

  __device__ void operator()(int step) const {
    const int line = static_cast<int>(threadIdx.x) / 8, piece = static_cast<int>(threadIdx.x) % 8;
    const int64_t k = int64_t{step} * kDepth;
    const bool inside = k + piece * 8 < dim;
    const uint32_t stage = stages + static_cast<uint32_t>(step % kStages * Tile::kStageBytes);
    const uint32_t to = stage + place_of(line, piece);
#pragma unroll
    for (int i = 0; i < Tile::kRows; i += kLinesAtOnce)
      copy_piece(to + i * kLineBytes, x + i * dim + k, inside && i < rows);
#pragma unroll
    for (int i = 0; i < Tile::kColumns; i += kLinesAtOnce)
      copy_piece(to + (Tile::kRows + i) * kLineBytes, project + i * dim + k, inside);
    if (line == 0) copy_piece(stage + place_of(Tile::kRows + Tile::kColumns, piece), norm + k, inside);
  }
};

__device__ inline void load_operand(uint32_t (&x)[4], uint32_t address) {
  const uint4 loaded = load_matrices(address);
  x[0] = loaded.x, x[1] = loaded.y, x[2] = loaded.z, x[3] = loaded.w;
}

/// A warp's sums: of products, and of squares of its rows' elements, which the warps that have these rows
/// share: each squares 16 of the rows, and of these all elements or 8 of each 16. What it squares it selects,
/// since a branch would hold back the loads and products behind it.
template <typename T, typename Tile>
struct WarpSums {
  static constexpr int kTall = kWarpRows / 16, kWide = Tile::kWarpColumns / 8;
  static constexpr int kSquareParts = Tile::kAcross / kTall;
  static_assert(kTall == 2 && (kSquareParts == 1 || kSquareParts == 2));
  float product[kTall][kWide][4] = {};
  float square[2] = {};

  __device__ void add_stage(const unsigned char* stage, int down, int across) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint32_t begin = shared_address(stage);
    const auto* norm = reinterpret_cast<const uint32_t*>(stage + (Tile::kRows + Tile::kColumns) * kLineBytes);
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step) {
      uint32_t a[kTall][4];
#pragma unroll
      for (int i = 0; i < kTall; ++i)
        load_operand(a[i], begin + place_of(down * kWarpRows + i * 16 + lane % 16, step * 2 + lane / 16));
      const uint32_t low = norm[step * 8 + lane % 4], high = norm[step * 8 + 4 + lane % 4];
#pragma unroll
      for (int j = 0; j < kWide; j += 2) {
        const int line = Tile::kRows + across * Tile::kWarpColumns + j * 8 + lane / 16 * 8 + lane % 8;
        uint32_t b[4];
        load_operand(b, begin + place_of(line, step * 2 + lane / 8 % 2));
        // The weights are scaled, not the states: these may be as large as their type allows.
#pragma unroll
        for (int i = 0; i < 4; ++i) b[i] = multiplied_pair<T>(b[i], i % 2 == 0 ? low : high);
#pragma unroll
        for (int i = 0; i < kTall; ++i) {
          multiply_add<T>(product[i][j], a[i], b[0], b[1]);
          multiply_add<T>(product[i][j + 1], a[i], b[2], b[3]);
        }
      }
      uint32_t squared[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) squared[r] = across % kTall == 0 ? a[0][r] : a[1][r];
      if constexpr (kSquareParts == 2)
#pragma unroll
        for (int r = 0; r < 2; ++r) squared[r] = across / kTall == 0 ? squared[r] : squared[2 + r];
#pragma unroll
      for (int r = 0; r < 4 / kSquareParts; ++r) {
        const float2 pair = widened_pair<T>(squared[r]);
        square[r % 2] += pair.x * pair.x + pair.y * pair.y;
      }
    }
  }
};

template <typename T, typename Tile>
__global__ void __launch_bounds__(kProductThreads) product_kernel(Awaited<ScorerProductArgs> awaited) {
  const ScorerProductArgs& args = awaited.get();
  using Sums = WarpSums<T, Tile>;
  extern __shared__ __align__(kLineBytes) unsigned char stages[];
  __shared__ float squares[Tile::kRows][Sums::kSquareParts];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int down = warp / Tile::kAcross, across = warp % Tile::kAcross;
  const int first = static_cast<int>(blockIdx.x) * Tile::kRows;
  const int steps = static_cast<int>((args.dim + kDepth - 1) / kDepth);
  const StageCopy<T, Tile> copy(args, first, shared_address(stages));
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) copy(step);
    close_copies();
  }
  Sums sums;
  for (int step = 0; step < steps; ++step) {
    await_copies<kStages - 2>();
    __syncthreads();  // nor does anybody still read the stage that is filled next
    if (step + kStages - 1 < steps) copy(step + kStages - 1);
    close_copies();
    sums.add_stage(stages + step % kStages * Tile::kStageBytes, down, across);
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float square = sum_of_four(sums.square[half]);
    const int row = down * kWarpRows + across % Sums::kTall * 16 + half * 8 + lane / 4;
    if (lane % 4 == 0) squares[row][across / Sums::kTall] = square;
  }
  __syncthreads();
  const int64_t sequence = blockIdx.z, columns = 2 * args.inner;
  float scale[Sums::kTall][2];
  bool real[Sums::kTall][2];
#pragma unroll
  for (int i = 0; i < Sums::kTall; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = down * kWarpRows + i * 16 + half * 8 + lane / 4;
      float square = 0;
#pragma unroll
      for (int part = 0; part < Sums::kSquareParts; ++part) square += squares[row][part];
      scale[i][half] = rsqrtf(square / static_cast<float>(args.dim) + args.eps);
      real[i][half] = first + row < args.tokens;
      if (real[i][half] && blockIdx.y == 0 && across == 0 && lane % 4 == 0)
        args.scale[sequence * args.tokens + first + row] = scale[i][half];
    }
  const int64_t chunks = (args.tokens + kScoreChunk - 1) / kScoreChunk, chunk = first / kScoreChunk + down;
#pragma unroll
  for (int j = 0; j < Sums::kWide; ++j) {
    const int64_t column =
        int64_t{blockIdx.y} * Tile::kColumns + across * Tile::kWarpColumns + j * 8 + lane % 4 * 2;
    float2 total = {0, 0};
#pragma unroll
    for (int i = 0; i < Sums::kTall; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (!real[i][half]) continue;
        const int64_t token =
            sequence * args.tokens + first + down * kWarpRows + i * 16 + half * 8 + lane / 4;
        const float2 made = {sums.product[i][j][half * 2] * scale[i][half],
                             sums.product[i][j][half * 2 + 1] * scale[i][half]};
        *reinterpret_cast<float2*>(args.both + token * columns + column) = made;
        total.x += made.x;
        total.y += made.y;
      }
    if (column < args.inner || chunk >= chunks) continue;
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      total.x += __shfl_xor_sync(0xffffffff, total.x, step);
      total.y += __shfl_xor_sync(0xffffffff, total.y, step);
    }
    if (lane < 4)
      *reinterpret_cast<float2*>(args.partial + (sequence * chunks + chunk) * args.inner + column -
                                 args.inner) = total;
  }
}

constexpr int kGradColumns = 32, kGradRows = 16;  ///< of a block's threads

/// A thread a column and every 16th row.
template <typename T>
__global__ void __launch_bounds__(kGradColumns* kGradRows)
    weight_grad_kernel(Awaited<ScorerWeightGradArgs> awaited) {
  const ScorerWeightGradArgs& args = awaited.get();
  __shared__ float shared[kGradRows][kGradColumns];
  const int64_t column = int64_t{blockIdx.x} * kGradColumns + threadIdx.x, rows = 2 * args.inner;
  float sum = 0;
  if (column < args.dim) {
    const float norm = to_float(static_cast<const T*>(args.norm)[column]);
#pragma unroll 8
    for (int64_t row = threadIdx.y; row < rows; row += kGradRows) {
      const float joint = args.joint[row * args.dim + column];
      sum += joint * to_float(static_cast<const T*>(args.project)[row * args.dim + column]);
      args.grad_project[row * args.dim + column] = joint * norm;
    }
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= args.dim) return;
  float total = 0;
#pragma unroll
  for (int row = 0; row < kGradRows; ++row) total += shared[row][threadIdx.x];
  args.grad_norm[column] = total;
}

template <typename T, typename Tile>
cudaError_t product(const ScorerProductArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.tokens + Tile::kRows - 1) / Tile::kRows),
                  static_cast<unsigned>(2 * args.inner / Tile::kColumns),
                  static_cast<unsigned>(args.sequences));
  const cudaError_t error = cudaFuncSetAttribute(product_kernel<T, Tile>,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kBytes);
  if (error != cudaSuccess) return error;
  launch_awaiting(product_kernel<T, Tile>, grid, kProductThreads, Tile::kBytes, stream, args);
  return cudaGetLastError();
}

/// Large tiles read less of the projection, where there are enough of them for nearly all multiprocessors.
template <typename T>
cudaError_t product(const ScorerProductArgs& args, cudaStream_t stream) {
  const int64_t columns = 2 * args.inner, tiles = (args.tokens + LargeTile::kRows - 1) / LargeTile::kRows *
                                                  args.sequences * columns / LargeTile::kColumns;
  const bool large = columns % LargeTile::kColumns == 0 && tiles >= kMultiprocessors * 3 / 4;
  return large ? product<T, LargeTile>(args, stream) : product<T, SmallTile>(args, stream);
}

template <typename T>
cudaError_t weight_grad(const ScorerWeightGradArgs& args, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((args.dim + kGradColumns - 1) / kGradColumns);
  launch_awaiting(weight_grad_kernel<T>, blocks, dim3(kGradColumns, kGradRows), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace

bool scorer_product_fits(ElementType type, int64_t sequences, int64_t dim, int64_t inner) {
  return (type == ElementType::kHalf || type == ElementType::kBFloat16) && sequences < 65536 && dim > 0 &&
         dim % 8 == 0 && inner > 0 && inner % 32 == 0;
}

cudaError_t launch_scorer_product(ElementType type, const ScorerProductArgs& args, cudaStream_t stream) {
  if (!scorer_product_fits(type, args.sequences, args.dim, args.inner)) return cudaErrorInvalidValue;
  return type == ElementType::kHalf ? product<__half>(args, stream) : product<__nv_bfloat16>(args, stream);
}

cudaError_t launch_scorer_weight_grad(ElementType type, const ScorerWeightGradArgs& args,
                                      cudaStream_t stream) {
  return with_element_but_double(type,
                                 [&](auto element) { return weight_grad<decltype(element)>(args, stream); });
}

}  // namespace fathom::cuda
