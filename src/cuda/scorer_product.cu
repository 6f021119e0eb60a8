// The product of a causal gate's scorer, on Hopper: a tile of tokens is multiplied while it is on its way
// past, and its norm is made of the same elements, W (x · r · g) = r · (W · g) x with r the inverse root mean
// square of a row and g the norm's weight, so nothing is read twice or written in between.
//
// A block makes (W · g) xᵀ by wgmma: W's elements go through registers, where they are scaled (the states are
// not, which may be as large as their type allows), x is multiplied where it lies in shared memory.
#include "cuda/scorer_product.h"

#include "cuda/vectors.cuh"
#include "cuda/warp_group_products.cuh"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {
namespace {

constexpr int kDepth = 64;  ///< of the reduction that a stage holds: lines of 128 bytes
constexpr int kStages = 6;  ///< all but one on their way at once
constexpr int kLineBytes = 128;
constexpr int kScoreChunks = kGroupTokens / kScoreChunk;  ///< of the tokens of one instruction
static_assert(kDepth * 2 == kLineBytes && kGroupTokens % kScoreChunk == 0);

/// A block's columns, 64 a warp group, and tokens.
template <int kColumns_, int kTokens_>
struct ProductTile {
  static constexpr int kColumns = kColumns_, kTokens = kTokens_;
  static constexpr int kThreads = kColumns / kGroupRows * kGroupThreads;
  static constexpr int kLinesAtOnce = kThreads / 8;  ///< that the block copies, a thread a piece of 16 bytes
  /// Lines of x, then of the projection.
  static constexpr int kStageBytes = (kTokens + kColumns) * kLineBytes;
  /// With the norm's weight, a line a stage, behind all stages.
  static constexpr int kBytes = kSwizzleBytes + kStages * (kStageBytes + kLineBytes);
  static_assert(kTokens % kLinesAtOnce == 0 && kColumns % kLinesAtOnce == 0 && kLinesAtOnce % 8 == 0);
  static_assert(kTokens % kGroupTokens == 0 && kThreads == 2 * kTokens, "a token has two threads");
};
using LargeTile = ProductTile<128, 128>;
using SmallTile = ProductTile<64, 64>;

/// Where a piece of a stage's line lies: eight lines' equal pieces lie in all banks, as wgmma takes them.
__device__ uint32_t place_of(int line, int piece) {
  return static_cast<uint32_t>(line * kLineBytes + ((piece ^ (line & 7)) << 4));
}

/// What a thread copies of each stage: one piece of every so-manieth line.
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
    rows = static_cast<int>(min(args.tokens - first, int64_t{Tile::kTokens})) - line;
  }

  __device__ void operator()(int step) const {
    const int line = static_cast<int>(threadIdx.x) / 8, piece = static_cast<int>(threadIdx.x) % 8;
    const int64_t k = int64_t{step} * kDepth;
    const bool inside = k + piece * 8 < dim;
    const uint32_t to =
        stages + static_cast<uint32_t>(step % kStages * Tile::kStageBytes) + place_of(line, piece);
#pragma unroll
    for (int i = 0; i < Tile::kTokens; i += Tile::kLinesAtOnce)
      copy_piece(to + i * kLineBytes, x + i * dim + k, inside && i < rows);
#pragma unroll
    for (int i = 0; i < Tile::kColumns; i += Tile::kLinesAtOnce)
      copy_piece(to + (Tile::kTokens + i) * kLineBytes, project + i * dim + k, inside);
    if (line == 0)
      copy_piece(stages + static_cast<uint32_t>(kStages * Tile::kStageBytes + step % kStages * kLineBytes +
                                                piece * 16),
                 norm + k, inside);
  }
};

/// A warp group's sums of products for its columns and the block's tokens, and a thread's sum of squares of
/// half of a token's elements.
template <typename T, typename Tile>
struct GroupSums {
  static constexpr int kParts = Tile::kTokens / kGroupTokens;
  float product[kParts][kGroupTokens / 8][4] = {};
  float square = 0;

  /// `stage`, `norm`: addresses. Until it returns nobody may write there.
  __device__ void add_stage(uint32_t stage, uint32_t norm) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    uint32_t a[kDepth / 16][4];
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step) {
      const int line = Tile::kTokens + warp * 16 + lane % 16;
      const uint4 loaded = load_matrices(stage + place_of(line, step * 2 + lane / 16));
      const uint32_t low = load_word(norm + (step * 8 + lane % 4) * 4),
                     high = load_word(norm + (step * 8 + 4 + lane % 4) * 4);
      a[step][0] = multiplied_pair<T>(loaded.x, low);
      a[step][1] = multiplied_pair<T>(loaded.y, low);
      a[step][2] = multiplied_pair<T>(loaded.z, high);
      a[step][3] = multiplied_pair<T>(loaded.w, high);
    }
    begin_group_products();
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step)
#pragma unroll
      for (int part = 0; part < kParts; ++part)
        group_multiply_add<T>(product[part], a[step],
                              swizzled_lines(stage + part * kGroupTokens * kLineBytes + step * 32));
    close_group_products();
    const int token = static_cast<int>(threadIdx.x) / 2, first = static_cast<int>(threadIdx.x) % 2 * 4;
#pragma unroll
    for (int piece = 0; piece < 4; ++piece) {
      const uint4 found = load_piece(stage + place_of(token, first + piece));
      const uint32_t pairs[4] = {found.x, found.y, found.z, found.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 pair = widened_pair<T>(pairs[i]);
        square += pair.x * pair.x + pair.y * pair.y;
      }
    }
    await_group_products();
#pragma unroll
    for (int part = 0; part < kParts; ++part) hold(product[part]);
  }
};

template <typename T, typename Tile>
__global__ void __launch_bounds__(Tile::kThreads) product_kernel(ScorerProductArgs args) {
  using Sums = GroupSums<T, Tile>;
  extern __shared__ unsigned char room[];
  __shared__ float scales[Tile::kTokens];
  const uint32_t stages = (shared_address(room) + kSwizzleBytes - 1) / kSwizzleBytes * kSwizzleBytes;
  const int first = static_cast<int>(blockIdx.x) * Tile::kTokens;
  const int steps = static_cast<int>((args.dim + kDepth - 1) / kDepth);
  const StageCopy<T, Tile> copy(args, first, stages);
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) copy(step);
    close_copies();
  }
  Sums sums;
  for (int step = 0; step < steps; ++step) {
    await_copies<kStages - 2>();
    show_to_group_products();
    __syncthreads();  // nor does anybody still read the stage that is filled next
    if (step + kStages - 1 < steps) copy(step + kStages - 1);
    close_copies();
    const auto stage = static_cast<uint32_t>(step % kStages);
    sums.add_stage(stages + stage * Tile::kStageBytes,
                   stages + kStages * Tile::kStageBytes + stage * kLineBytes);
  }

  const int64_t sequence = blockIdx.z, columns = 2 * args.inner;
  {
    const float square = sums.square + __shfl_xor_sync(kAllLanes, sums.square, 1);
    const int token = static_cast<int>(threadIdx.x) / 2;
    const float scale = rsqrtf(square / static_cast<float>(args.dim) + args.eps);
    if (threadIdx.x % 2 == 0) {
      scales[token] = scale;
      if (blockIdx.y == 0 && first + token < args.tokens)
        args.scale[sequence * args.tokens + first + token] = scale;
    }
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t chunks = (args.tokens + kScoreChunk - 1) / kScoreChunk;
  // Each 8 columns behind the other.
  const int64_t column = int64_t{blockIdx.y} * Tile::kColumns + warp * 16 + lane / 4;
#pragma unroll
  for (int part = 0; part < Sums::kParts; ++part)
#pragma unroll
    for (int chunk = 0; chunk < kScoreChunks; ++chunk) {
      float total[2] = {0, 0};
#pragma unroll
      for (int j = chunk * kScoreChunk / 8; j < (chunk + 1) * kScoreChunk / 8; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int token = part * kGroupTokens + j * 8 + lane % 4 * 2 + i;
          if (first + token >= args.tokens) continue;
          float* to = args.both + (sequence * args.tokens + first + token) * columns + column;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float made = sums.product[part][j][half * 2 + i] * scales[token];
            to[half * 8] = made;
            total[half] += made;
          }
        }
      const int64_t number = first / kScoreChunk + part * kScoreChunks + chunk;
      if (column < args.inner || number >= chunks) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float sum = sum_of_four(total[half]);
        if (lane % 4 == 0)
          args.partial[(sequence * chunks + number) * args.inner + column + half * 8 - args.inner] = sum;
      }
    }
}

template <typename T, typename Tile>
cudaError_t product(const ScorerProductArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.tokens + Tile::kTokens - 1) / Tile::kTokens),
                  static_cast<unsigned>(2 * args.inner / Tile::kColumns),
                  static_cast<unsigned>(args.sequences));
  const cudaError_t error = cudaFuncSetAttribute(product_kernel<T, Tile>,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kBytes);
  if (error != cudaSuccess) return error;
  product_kernel<T, Tile><<<grid, Tile::kThreads, Tile::kBytes, stream>>>(args);
  return cudaGetLastError();
}

/// Large tiles read less of the projection, where there are enough of them for nearly all multiprocessors.
template <typename T>
cudaError_t product(const ScorerProductArgs& args, cudaStream_t stream) {
  const int64_t columns = 2 * args.inner, tiles = (args.tokens + LargeTile::kTokens - 1) /
                                                  LargeTile::kTokens * args.sequences * columns /
                                                  LargeTile::kColumns;
  const bool large = columns % LargeTile::kColumns == 0 && tiles >= kMultiprocessors * 3 / 4;
  return large ? product<T, LargeTile>(args, stream) : product<T, SmallTile>(args, stream);
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

}  // namespace fathom::cuda
