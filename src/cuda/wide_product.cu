// Products of counted rows in wide tiles on Hopper, and such with SwiGLU behind them. A block has 128 rows,
// which two warp groups multiply together (wgmma), and takes tile after tile; two blocks with other rows
// share what they read of the weight. What is written leaves by TMA, warp by warp, while the next tile is
// multiplied.
#include "cuda/wide_product.h"

#include <cute/arch/cluster_sm90.hpp>
#include <cute/arch/copy_sm90.hpp>

#include "cuda/awaited.cuh"
#include "cuda/hopper_lines.cuh"
#include "cuda/swiglu_formula.cuh"
#include "cuda/tile_choice.h"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {
namespace {

constexpr int kGroups = 2, kGroupWarps = 4, kGroupRows = 64;
constexpr int kWarps = kGroups * kGroupWarps, kWarpRows = kGroupRows / kGroupWarps;
constexpr int kRows = kGroups * kGroupRows;
constexpr int kThreads = 32 * (kWarps + 1);  ///< the last warp asks for what the others multiply
constexpr int kCluster = 2;
constexpr int kStages = 4;         ///< of the reduction, on their way at once
constexpr int kPairsTogether = 8;  ///< pairs of blocks' rows that go through all columns before the next do
constexpr int kBoxBytes = kWarpRows * kLineBytes;  ///< of a warp's rows, 64 columns
constexpr int kSharedBytes = 227 * 1024;           ///< of a block

/// `kGates`: the first half of a tile's columns are gates of the other.
template <int kTileColumns, bool kGates>
struct Tile {
  static constexpr bool kHasGates = kGates;
  static constexpr int kColumns = kTileColumns;
  static constexpr int kOut = kHasGates ? kColumns / 2 : kColumns;  ///< of the result
  static constexpr int kBoxes = kOut / kLineElements, kRest = kOut % kLineElements;
  static constexpr int kStageBytes = (kRows + kColumns) * kLineBytes;
  static constexpr int kRestBytes = kWarpRows * kRest * 2;
  static constexpr int kFree = kSharedBytes - 2 * kSwizzleBytes - kStages * kStageBytes - kWarps * kRestBytes;
  static constexpr int kRoom = kFree / (kWarps * kBoxBytes);
  /// Boxes of a warp that are on their way out at once: of all columns, if there is room.
  static constexpr int kHeld = kRoom < kBoxes ? kRoom : kBoxes;
  static_assert(kHeld > 0);
};

template <typename Tile>
struct alignas(kSwizzleBytes) Room {
  struct Stage {
    unsigned char a[kRows * kLineBytes];
    unsigned char weight[Tile::kColumns * kLineBytes];
  };
  Stage stages[kStages];
  unsigned char boxes[kWarps][Tile::kHeld][kBoxBytes];
  unsigned char rest[kWarps][Tile::kRestBytes > 0 ? Tile::kRestBytes : 16];  ///< columns behind the last box
  uint64_t full[kStages], empty[kStages];
};

struct Maps {
  CUtensorMap a, weight, boxes, rest;
};

/// Tiles that a pair of blocks takes, one after the other.
template <typename Tile>
struct Turns {
  int pairs, columns, steps;  ///< pairs of tiles of rows, tiles of columns, steps of the reduction
  int out;                    ///< columns of the result
  int turn, stride;
  int rank;  ///< of the block in its pair

  __device__ explicit Turns(const WideProductArgs& args) {
    const auto room = static_cast<int>(args.rows);
    const int rows = args.count == nullptr ? room : min(max(*args.count, 0), room);
    pairs = (rows + kCluster * kRows - 1) / (kCluster * kRows);
    out = static_cast<int>(args.columns);
    columns = (out + Tile::kOut - 1) / Tile::kOut;
    steps = (static_cast<int>(args.depth) + kLineElements - 1) / kLineElements;
    turn = static_cast<int>(blockIdx.x) / kCluster;
    stride = static_cast<int>(gridDim.x) / kCluster;
    rank = static_cast<int>(cute::block_rank_in_cluster());
  }

  __device__ bool are_left() const { return turn < pairs * columns; }
  __device__ void advance() { turn += stride; }
  __device__ int row() const { return ((first() + inside() % height()) * kCluster + rank) * kRows; }
  /// Of the result.
  __device__ int column() const { return inside() / height() * Tile::kOut; }
  /// Of the weight, that this block asks for.
  __device__ int line() const {
    return column() + rank * (Tile::kHasGates ? out : Tile::kColumns / kCluster);
  }

 private:
  __device__ int first() const { return turn / (kPairsTogether * columns) * kPairsTogether; }
  __device__ int inside() const { return turn - first() * columns; }
  __device__ int height() const { return min(kPairsTogether, pairs - first()); }
};

/// Asks for all stages of all turns, one after the other. Of one thread.
template <typename Tile>
__device__ void ask(Turns<Tile> turns, const Maps& maps, Room<Tile>& room) {
  constexpr auto kHint = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  constexpr uint16_t kBoth = (1 << kCluster) - 1;
  for (int taken = 0; turns.are_left(); turns.advance()) {
    const int row = turns.row(), line = turns.line();
    for (int step = 0; step < turns.steps; ++step, ++taken) {
      const int at = taken % kStages, turn = taken / kStages, term = step * kLineElements;
      if (turn > 0) Empty::wait(&room.empty[at], (turn - 1) & 1);
      auto& stage = room.stages[at];
      Full::arrive_and_expect_tx(&room.full[at], sizeof stage);
      cute::SM90_TMA_LOAD_2D::copy(&maps.a, &room.full[at], kHint, stage.a, term, row);
      constexpr int kLines = Tile::kColumns / kCluster;
      cute::SM90_TMA_LOAD_MULTICAST_2D::copy(&maps.weight, &room.full[at], kBoth, kHint,
                                             stage.weight + turns.rank * kLines * kLineBytes, term, line);
    }
  }
}

/// A warp group's rows of a tile.
template <typename T, typename Tile>
class Rows {
 public:
  __device__ Rows(const Turns<Tile>& turns, const Maps& maps, Room<Tile>& room)
      : turns_(turns),
        maps_(maps),
        room_(room),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32) {}

  /// All turns.
  __device__ void run() {
    for (; turns_.are_left(); turns_.advance()) {
      multiply();
      write();
    }
    if (lane_ == 0) cute::tma_store_wait<0>();  // shared memory may be given back
    __syncwarp();
  }

 private:
  __device__ void multiply() {
    for (int step = 0; step < turns_.steps; ++step, ++taken_) {
      const int at = taken_ % kStages;
      Full::wait(&room_.full[at], taken_ / kStages & 1);
      const Operand a(shared_address(room_.stages[at].a) + warp_ / kGroupWarps * kGroupRows * kLineBytes);
      const Operand weight(shared_address(room_.stages[at].weight));
      wgmma::begin(sum_);
#pragma unroll
      for (int i = 0; i < kLineElements / kTerms; ++i)
        wgmma::multiply_lines<T>(sum_, a.at(i * kTerms * 2), weight.at(i * kTerms * 2), step > 0 || i > 0);
      cute::warpgroup_commit_batch();
      if (step == 0) continue;
      cute::warpgroup_wait<1>();
      leave(taken_ - 1);
    }
    wgmma::finish(sum_);
    leave(taken_ - 1);
  }

  /// Both blocks wait for both before they write over a stage.
  __device__ void leave(int taken) const {
    const int other = static_cast<int>(threadIdx.x) % (32 * kGroupWarps);
    if (other < kCluster) Empty::arrive(&room_.empty[taken % kStages], static_cast<uint32_t>(other), 1);
  }

  /// As many boxes at a time as are held.
  __device__ void write() const {
    const int row = turns_.row() + warp_ * kWarpRows, column = turns_.column(),
              place = lane_ % 16 * Tile::kRest * 2 + lane_ / 16 * 16;
    auto& boxes = room_.boxes[warp_];
    unsigned char* rest = room_.rest[warp_];
#pragma unroll
    for (int first = 0; first < Tile::kBoxes; first += Tile::kHeld) {
      const int end = first + Tile::kHeld < Tile::kBoxes ? first + Tile::kHeld : Tile::kBoxes;
      if (lane_ == 0) cute::tma_store_wait<0>();
      __syncwarp();
#pragma unroll
      for (int box = first; box < end; ++box)
#pragma unroll
        for (int i = 0; i < kLineElements / 16; ++i)
          store_matrices(shared_address(boxes[box - first]) + place_of(lane_ % 16, i * 2 + lane_ / 16),
                         made(box * 32 + i * 8));
      const bool is_last = end == Tile::kBoxes;
      if (is_last)
#pragma unroll
        for (int i = 0; i < Tile::kRest / 16; ++i)
          store_matrices(shared_address(rest) + place + i * 32, made(Tile::kBoxes * 32 + i * 8));
      cute::tma_store_fence();
      __syncwarp();
      if (lane_ != 0) continue;
#pragma unroll
      for (int box = first; box < end; ++box)
        cute::SM90_TMA_STORE_2D::copy(&maps_.boxes, boxes[box - first], column + box * kLineElements, row);
      if (is_last && Tile::kRest > 0)
        cute::SM90_TMA_STORE_2D::copy(&maps_.rest, rest, column + Tile::kBoxes * kLineElements, row);
      cute::tma_store_arrive();
    }
  }

  /// What eight sums of 16 columns become.
  __device__ uint4 made(int first) const {
    if constexpr (Tile::kHasGates) {
      float value[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float gate = sum_[first + i];
        value[i] = gate * sigmoid<T>(gate) * sum_[Tile::kColumns / 4 + first + i];
      }
      return packed<T>(value);
    } else {
      return packed<T>(sum_ + first);
    }
  }

  Turns<Tile> turns_;
  const Maps& maps_;
  Room<Tile>& room_;
  int warp_, lane_;
  int taken_ = 0;  ///< steps so far
  float sum_[Tile::kColumns / 2];
};

template <typename T, typename Tile>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    wide_product_kernel(Awaited<WideProductArgs> awaited, const __grid_constant__ Maps maps) {
  extern __shared__ unsigned char memory[];
  auto& room = room_in<Room<Tile>>(memory);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      Full::init(&room.full[stage], 1);
      Empty::init(&room.empty[stage], kGroups * kCluster);
    }
    cutlass::arch::fence_barrier_init();
  }
  cute::cluster_sync();
  const Turns<Tile> turns(awaited.get());
  if (threadIdx.x / 32 == kWarps) {
    if (threadIdx.x % 32 == 0) ask<Tile>(turns, maps, room);
    __syncwarp();
  } else {
    Rows<T, Tile>(turns, maps, room).run();
  }
  cute::cluster_sync();  // nobody writes to a block that is gone
}

template <typename Tile>
cudaError_t describe_all(ElementType type, const WideProductArgs& args, Maps& maps) {
  const auto matrix = [&](const void* begin, int64_t lines, int64_t elements, int box_lines, CUtensorMap& map,
                          int box_elements = kLineElements) {
    return describe({.type = type,
                     .begin = begin,
                     .elements = elements,
                     .stride = elements,
                     .lines = lines,
                     .box_lines = box_lines,
                     .box_elements = box_elements},
                    map);
  };
  for (const cudaError_t error : {matrix(args.a, args.rows, args.depth, kRows, maps.a),
                                  matrix(args.weight, Tile::kHasGates ? 2 * args.columns : args.columns,
                                         args.depth, Tile::kColumns / kCluster, maps.weight),
                                  matrix(args.y, args.rows, args.columns, kWarpRows, maps.boxes),
                                  matrix(args.y, args.rows, args.columns, kWarpRows, maps.rest,
                                         Tile::kRest > 0 ? Tile::kRest : kLineElements)})
    if (error != cudaSuccess) return error;
  return cudaSuccess;
}

template <typename T, int kColumns, bool kGates>
cudaError_t run(ElementType type, const WideProductArgs& args, cudaStream_t stream) {
  using Tile = Tile<kColumns, kGates>;
  Maps maps;
  if (const cudaError_t error = describe_all<Tile>(type, args, maps)) return error;
  constexpr size_t kBytes = sizeof(Room<Tile>) + kSwizzleBytes;
  static_assert(kBytes <= kSharedBytes);
  const auto kernel = wide_product_kernel<T, Tile>;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)))
    return error;
  launch_awaiting(kernel, dim3(kMultiprocessors), dim3(kThreads), kBytes, stream, args, maps);
  return cudaGetLastError();
}

template <typename T>
cudaError_t run_product(ElementType type, const WideProductArgs& args, int columns, cudaStream_t stream) {
  switch (columns) {
    case 192:
      return run<T, 192, false>(type, args, stream);
    case 208:
      return run<T, 208, false>(type, args, stream);
    case 224:
      return run<T, 224, false>(type, args, stream);
    case 256:
      return run<T, 256, false>(type, args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

template <typename T>
cudaError_t run_swiglu(ElementType type, const WideProductArgs& args, int columns, cudaStream_t stream) {
  switch (columns) {
    case 192:
      return run<T, 192, true>(type, args, stream);
    case 224:
      return run<T, 224, true>(type, args, stream);
    case 256:
      return run<T, 256, true>(type, args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

int wide_columns(int64_t rows, int64_t depth, int64_t columns) {
  return best_columns(rows, columns, depth, {192, 208, 224, 256});
}

cudaError_t launch_wide_product(ElementType type, const WideProductArgs& args, int tile_columns,
                                cudaStream_t stream) {
  return type == ElementType::kHalf ? run_product<__half>(type, args, tile_columns, stream)
                                    : run_product<__nv_bfloat16>(type, args, tile_columns, stream);
}

int wide_swiglu_columns(int64_t rows, int64_t depth, int64_t columns) {
  return best_columns(rows, 2 * columns, depth, {192, 224, 256});
}

cudaError_t launch_wide_swiglu(ElementType type, const WideProductArgs& args, int tile_columns,
                               cudaStream_t stream) {
  return type == ElementType::kHalf ? run_swiglu<__half>(type, args, tile_columns, stream)
                                    : run_swiglu<__nv_bfloat16>(type, args, tile_columns, stream);
}

}  // namespace fathom::cuda
