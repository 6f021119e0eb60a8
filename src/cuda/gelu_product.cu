// A product with GELU behind it, on Hopper, and the product that brings gradients back through GELU. Either
// moves so much that memory is what it waits for, so two blocks share a multiprocessor: while one's warps
// take GELU and hand their rows to TMA, the other's multiply. A block keeps its columns and goes down the
// rows.
#include <algorithm>
#include <cute/arch/copy_sm90.hpp>

#include "cuda/awaited.cuh"
#include "cuda/gelu_formula.cuh"
#include "cuda/hopper_lines.cuh"
#include "cuda/linear_gelu.h"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {
namespace {

constexpr int kBlocksAtOnce = 2;  ///< on a multiprocessor
constexpr int kGroupWarps = 4, kGroupRows = 64;
constexpr int kWarpRows = kGroupRows / kGroupWarps;
constexpr int kBoxBytes = kWarpRows * kLineBytes;       ///< of a warp's rows, 64 columns
constexpr int kPartBytes = kLineElements * kLineBytes;  ///< of 64 of a weight's rows, 64 columns

enum class Way {
  kForward,   ///< GELU(a · weightᵀ + bias)
  kKeeping,   ///< the same, and what GELU is taken of
  kBackward,  ///< (a · weight) GELU'(inner), and the sums of its columns
};

/// Of either way: matrices are row-major, `weight` [columns, depth], or [depth, columns] on the way back.
struct ProductArgs {
  const void* a;  ///< [rows, depth]
  const void* weight;
  const void* bias;  ///< [columns], or null
  void* y;           ///< [rows, columns]
  void* inner;       ///< likewise, or null
  float* partial;    ///< [blocks of a column, columns], or null
  const int32_t* count;
  int64_t rows, expected, depth, columns;
};

/// A block's part of the result: 64 rows of each warp group, and so many times 64 columns.
template <int kGroups, int kParts>
struct Tile {
  static constexpr int kGroupCount = kGroups, kPartCount = kParts;
  static constexpr int kRows = kGroups * kGroupRows, kColumns = kParts * kLineElements;
  static constexpr int kWarps = kGroups * kGroupWarps;
  static constexpr int kThreads = 32 * (kWarps + 1);    ///< the last warp asks for what the others multiply
  static constexpr int kStages = kGroups == 1 ? 5 : 2;  ///< of the reduction, on their way at once
};

template <typename Tile>
struct alignas(kSwizzleBytes) Room {
  struct Stage {
    unsigned char a[Tile::kRows * kLineBytes];
    unsigned char weight[Tile::kColumns * kLineBytes];
  };
  Stage stages[Tile::kStages];
  unsigned char boxes[Tile::kWarps][2][kBoxBytes];  ///< on their way out, and what comes in for them
  uint64_t full[Tile::kStages], empty[Tile::kStages], inner[Tile::kWarps];
  float sums[Tile::kWarps][Tile::kColumns];  ///< of columns
  float bias[Tile::kColumns];
};

struct Maps {
  CUtensorMap a, weight, y, inner;
};

/// Tiles of rows that a block takes, one after the other.
struct Turns {
  int tile, tiles, step;  ///< the next, and how many there are
  int column;             ///< the block's first
  int rows;
  int steps;  ///< of the reduction

  template <typename Tile>
  __device__ static Turns of_block(const ProductArgs& args) {
    const auto room = static_cast<int>(args.rows), depth = static_cast<int>(args.depth);
    const int rows = args.count == nullptr ? room : min(max(*args.count, 0), room);
    const int columns = (static_cast<int>(args.columns) + Tile::kColumns - 1) / Tile::kColumns,
              block = static_cast<int>(blockIdx.x);
    return {block / columns,
            (rows + Tile::kRows - 1) / Tile::kRows,
            static_cast<int>(gridDim.x) / columns,
            block % columns * Tile::kColumns,
            rows,
            (depth + kLineElements - 1) / kLineElements};
  }
  __device__ bool are_left() const { return tile < tiles; }
};

/// Asks for all stages of all turns, one after the other. Of one thread.
template <Way kWay, typename Tile>
__device__ void ask(Turns turns, const Maps& maps, Room<Tile>& room) {
  constexpr auto kHint = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  for (int taken = 0; turns.are_left(); turns.tile += turns.step)
    for (int step = 0; step < turns.steps; ++step, ++taken) {
      const int at = taken % Tile::kStages, turn = taken / Tile::kStages, term = step * kLineElements;
      if (turn > 0) Empty::wait(&room.empty[at], (turn - 1) & 1);
      auto& stage = room.stages[at];
      Full::arrive_and_expect_tx(&room.full[at], sizeof stage);
      cute::SM90_TMA_LOAD_2D::copy(&maps.a, &room.full[at], kHint, stage.a, term, turns.tile * Tile::kRows);
      if constexpr (kWay == Way::kBackward)
        for (int part = 0; part < Tile::kPartCount; ++part)
          cute::SM90_TMA_LOAD_2D::copy(&maps.weight, &room.full[at], kHint, stage.weight + part * kPartBytes,
                                       turns.column + part * kLineElements, term);
      else
        cute::SM90_TMA_LOAD_2D::copy(&maps.weight, &room.full[at], kHint, stage.weight, term, turns.column);
    }
}

/// A warp group's rows of a tile.
template <typename T, Way kWay, typename Tile>
class Rows {
 public:
  __device__ Rows(const Turns& turns, const Maps& maps, Room<Tile>& room)
      : turns_(turns),
        maps_(maps),
        room_(room),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32) {}

  /// All turns.
  __device__ void run() {
    for (int turn = 0; turns_.are_left(); turns_.tile += turns_.step, ++turn) {
      if (kWay == Way::kBackward) ask_for_inner();
      multiply();
      if (kWay == Way::kBackward) Full::wait(&room_.inner[warp_], turn & 1);
#pragma unroll
      for (int part = 0; part < Tile::kPartCount; ++part) write(part);
    }
    if (lane_ == 0) cute::tma_store_wait<0>();  // shared memory may be given back
  }

 private:
  static constexpr int kAtOnce = 8;  ///< elements of a thread in 16 columns

  /// First of the warp's rows in the whole matrix.
  __device__ int row() const {
    return turns_.tile * Tile::kRows + warp_ * kWarpRows;
  }

  /// Of all parts, where what was there before has left.
  __device__ void ask_for_inner() {
    if (lane_ == 0) {
      constexpr auto kHint = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_FIRST);
      cute::tma_store_wait<0>();
      Full::arrive_and_expect_tx(&room_.inner[warp_], Tile::kPartCount * kBoxBytes);
      for (int part = 0; part < Tile::kPartCount; ++part)
        cute::SM90_TMA_LOAD_2D::copy(&maps_.inner, &room_.inner[warp_], kHint, room_.boxes[warp_][part],
                                     turns_.column + part * kLineElements, row());
    }
    __syncwarp();
  }

  __device__ void multiply() {
    for (int step = 0; step < turns_.steps; ++step, ++taken_) {
      const int at = taken_ % Tile::kStages;
      Full::wait(&room_.full[at], taken_ / Tile::kStages & 1);
      const Operand a(shared_address(room_.stages[at].a) + warp_ / kGroupWarps * kGroupRows * kLineBytes);
      const uint32_t weight = shared_address(room_.stages[at].weight);
      wgmma::begin(sum_);
#pragma unroll
      for (int i = 0; i < kLineElements / kTerms; ++i) {
        const bool adds = step > 0 || i > 0;
        if (kWay == Way::kBackward)
          wgmma::multiply_lines<T, wgmma::Major::MN>(
              sum_, a.at(i * kTerms * 2), Operand(weight, kPartBytes).at(i * kTerms * kLineBytes), adds);
        else
          wgmma::multiply_lines<T>(sum_, a.at(i * kTerms * 2), Operand(weight).at(i * kTerms * 2), adds);
      }
      cute::warpgroup_commit_batch();
      if (step == 0) continue;
      cute::warpgroup_wait<1>();
      leave(taken_ - 1);
    }
    wgmma::finish(sum_);
    leave(taken_ - 1);
  }

  /// 64 columns.
  __device__ void write(int part) {
    // Where one box is written at a time, it may be on its way while the other is filled.
    const int at = kWay == Way::kForward ? written_++ % 2 : kWay == Way::kKeeping ? 1 : part;
    unsigned char *box = room_.boxes[warp_][at], *kept = room_.boxes[warp_][0];
    if (kWay != Way::kBackward) {
      if (lane_ == 0) cute::tma_store_wait<kWay == Way::kKeeping ? 0 : 1>();
      __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < kLineElements / 16; ++i) {
      const uint32_t place = place_of(lane_ % 16, i * 2 + lane_ / 16);
      float value[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) value[j] = sum_[part * 32 + i * kAtOnce + j];
      if (kWay == Way::kBackward) {
        go_back(value, load_matrices(shared_address(box) + place));
        add_columns(value, part * kLineElements + i * 16);
      } else {
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j)
          value[j] += room_.bias[part * kLineElements + i * 16 + j / 4 * 8 + lane_ % 4 * 2 + j % 2];
        if (kWay == Way::kKeeping) store_matrices(shared_address(kept) + place, packed<T>(value));
#pragma unroll
        for (float& x : value) x = gelu<T>(x);
      }
      store_matrices(shared_address(box) + place, packed<T>(value));
    }
    cute::tma_store_fence();
    __syncwarp();
    if (lane_ != 0) return;
    const int column = turns_.column + part * kLineElements;
    if (kWay == Way::kKeeping) cute::SM90_TMA_STORE_2D::copy(&maps_.inner, kept, column, row());
    cute::SM90_TMA_STORE_2D::copy(&maps_.y, box, column, row());
    cute::tma_store_arrive();
  }

  /// Gradients by what GELU was taken of.
  __device__ static void go_back(float (&grad)[kAtOnce], const uint4& inner) {
    const uint32_t pairs[] = {inner.x, inner.y, inner.z, inner.w};
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const float2 pair = widened_pair<T>(pairs[j / 2]);
      const float x = j % 2 == 0 ? pair.x : pair.y;
      grad[j] *= normal_share<T>(x) + x * normal_density<T>(x);
    }
  }

  /// Adds 16 columns of the rows that are there to the warp's sums, which a lane in eight keeps.
  __device__ void add_columns(const float (&value)[kAtOnce], int column) {
    const int first = row() + lane_ / 4;
    const bool has_low = first < turns_.rows, has_high = first + 8 < turns_.rows;
    float total[4];  // columns 2 · (lane % 4), the next, and both 8 further on
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = j / 2 * 4 + j % 2;
      total[j] = (has_low ? value[at] : 0) + (has_high ? value[at + 2] : 0);
    }
    // Lanes with the upper bit keep the second half of what both have, and give the first.
#pragma unroll
    for (int kept = 2, lanes = 16; kept > 0; kept /= 2, lanes /= 2)
#pragma unroll
      for (int j = 0; j < kept; ++j) {
        const bool upper = (lane_ & lanes) != 0;
        const float given = upper ? total[j] : total[j + kept];
        total[j] = (upper ? total[j + kept] : total[j]) + __shfl_xor_sync(kAllLanes, given, lanes);
      }
    total[0] += __shfl_xor_sync(kAllLanes, total[0], 4);
    if ((lane_ & 4) == 0)
      room_.sums[warp_][column + (lane_ >> 4) * 8 + lane_ % 4 * 2 + (lane_ >> 3 & 1)] += total[0];
  }

  __device__ void leave(int taken) const {
    if (threadIdx.x % (32 * kGroupWarps) == 0) Empty::arrive(&room_.empty[taken % Tile::kStages]);
  }

  Turns turns_;
  const Maps& maps_;
  Room<Tile>& room_;
  int warp_, lane_;
  int taken_ = 0;    ///< steps so far
  int written_ = 0;  ///< boxes so far
  float sum_[Tile::kColumns / 2];
};

template <typename T, Way kWay, typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksAtOnce)
    gelu_product_kernel(Awaited<ProductArgs> awaited, const __grid_constant__ Maps maps) {
  extern __shared__ unsigned char memory[];
  auto& room = room_in<Room<Tile>>(memory);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      Full::init(&room.full[stage], 1);
      Empty::init(&room.empty[stage], Tile::kGroupCount);
    }
    for (uint64_t& barrier : room.inner) Full::init(&barrier, 1);
    cutlass::arch::fence_barrier_init();
  }
  const ProductArgs& args = awaited.get();
  const Turns turns = Turns::of_block<Tile>(args);
  for (int i = thread; i < Tile::kColumns; i += Tile::kThreads) {
    if (kWay != Way::kBackward)
      room.bias[i] =
          turns.column + i < args.columns ? to_float(static_cast<const T*>(args.bias)[turns.column + i]) : 0;
    else
      for (auto& sums : room.sums) sums[i] = 0;
  }
  __syncthreads();
  if (thread / 32 == Tile::kWarps) {
    if (thread % 32 == 0) ask<kWay, Tile>(turns, maps, room);
  } else {
    Rows<T, kWay, Tile>(turns, maps, room).run();
  }
  if (kWay != Way::kBackward) return;
  __syncthreads();
  for (int i = thread; i < Tile::kColumns && turns.column + i < args.columns; i += Tile::kThreads) {
    float total = 0;
    for (const auto& sums : room.sums) total += sums[i];
    args.partial[turns.tile * args.columns + turns.column + i] = total;  // its first tile: which block it is
  }
}

/// Blocks that share a column of tiles.
template <typename Tile>
int64_t blocks_of_column(const ProductArgs& args) {
  const int64_t columns = (args.columns + Tile::kColumns - 1) / Tile::kColumns,
                tiles = (args.rows + Tile::kRows - 1) / Tile::kRows;
  return std::min(tiles, std::max<int64_t>(1, kBlocksAtOnce * kMultiprocessors / columns));
}

template <Way kWay, typename Tile>
cudaError_t describe_all(ElementType type, const ProductArgs& args, Maps& maps) {
  const auto matrix = [&](const void* begin, int64_t lines, int64_t elements, int box_lines,
                          CUtensorMap& map) {
    return describe({.type = type,
                     .begin = begin,
                     .elements = elements,
                     .stride = elements,
                     .lines = lines,
                     .box_lines = box_lines},
                    map);
  };
  constexpr bool kBack = kWay == Way::kBackward;
  for (const cudaError_t error :
       {matrix(args.a, args.rows, args.depth, Tile::kRows, maps.a),
        kBack ? matrix(args.weight, args.depth, args.columns, kLineElements, maps.weight)
              : matrix(args.weight, args.columns, args.depth, Tile::kColumns, maps.weight),
        matrix(args.y, args.rows, args.columns, kWarpRows, maps.y),
        matrix(args.inner != nullptr ? args.inner : args.y, args.rows, args.columns, kWarpRows, maps.inner)})
    if (error != cudaSuccess) return error;
  return cudaSuccess;
}

template <typename T, Way kWay, typename Tile>
cudaError_t run(ElementType type, const ProductArgs& args, cudaStream_t stream) {
  Maps maps;
  if (const cudaError_t error = describe_all<kWay, Tile>(type, args, maps)) return error;
  constexpr size_t kBytes = sizeof(Room<Tile>) + kSwizzleBytes;
  const auto kernel = gelu_product_kernel<T, kWay, Tile>;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)))
    return error;
  const int64_t blocks = blocks_of_column<Tile>(args);
  const dim3 grid(static_cast<unsigned>((args.columns + Tile::kColumns - 1) / Tile::kColumns * blocks));
  // Blocks that take several turns would keep their predecessor's out while they wait for it.
  if (blocks * Tile::kRows >= args.rows)
    launch_awaiting(kernel, grid, dim3(Tile::kThreads), kBytes, stream, args, maps);
  else
    launch_awaiting<Launch::kInTurn>(kernel, grid, dim3(Tile::kThreads), kBytes, stream, args, maps);
  return cudaGetLastError();
}

using LargeTile = Tile<2, 2>;
using SmallTile = Tile<1, 1>;

/// Small tiles where large ones would leave multiprocessors idle.
bool takes_large(const ProductArgs& args) {
  const int64_t rows = args.expected > 0 ? args.expected : args.rows;
  return (rows + 127) / 128 * ((args.columns + 127) / 128) > kMultiprocessors;
}

template <Way kWay>
cudaError_t run(ElementType type, const ProductArgs& args, cudaStream_t stream) {
  const bool large = takes_large(args);
  if (type == ElementType::kHalf)
    return large ? run<__half, kWay, LargeTile>(type, args, stream)
                 : run<__half, kWay, SmallTile>(type, args, stream);
  return large ? run<__nv_bfloat16, kWay, LargeTile>(type, args, stream)
               : run<__nv_bfloat16, kWay, SmallTile>(type, args, stream);
}

ProductArgs backward_args(const GeluProductGradArgs& args) {
  return {.a = args.grad,
          .weight = args.weight,
          .bias = nullptr,
          .y = args.grad_inner,
          .inner = const_cast<void*>(args.inner),
          .partial = args.partial,
          .count = args.count,
          .rows = args.rows,
          .expected = args.expected,
          .depth = args.depth,
          .columns = args.columns};
}

}  // namespace

cudaError_t launch_gelu_product(ElementType type, const LinearGeluArgs& args, cudaStream_t stream) {
  const ProductArgs product = {.a = args.x,
                               .weight = args.weight,
                               .bias = args.bias,
                               .y = args.y,
                               .inner = args.inner,
                               .partial = nullptr,
                               .count = args.count,
                               .rows = args.rows,
                               .expected = args.expected,
                               .depth = args.in_dim,
                               .columns = args.out_dim};
  return args.inner != nullptr ? run<Way::kKeeping>(type, product, stream)
                               : run<Way::kForward>(type, product, stream);
}

int64_t gelu_product_grad_blocks(const GeluProductGradArgs& args) {
  const ProductArgs product = backward_args(args);
  return takes_large(product) ? blocks_of_column<LargeTile>(product) : blocks_of_column<SmallTile>(product);
}

cudaError_t launch_gelu_product_grad(ElementType type, const GeluProductGradArgs& args, cudaStream_t stream) {
  if (!linear_gelu_fits(type, args.rows, args.depth, args.columns)) return cudaErrorInvalidValue;
  return run<Way::kBackward>(type, backward_args(args), stream);
}

}  // namespace fathom::cuda
