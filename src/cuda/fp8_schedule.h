// Which blocks of a product in FP8 multiply what, and where pieces of a tile's sum meet. No CUDA: the host
// plans, and asks in tests what every cluster would do.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __CUDACC__
#define FATHOM_HOST_DEVICE __host__ __device__
#else
#define FATHOM_HOST_DEVICE
#endif

namespace fathom::cuda {

/// Tiles of a product as clusters take them, and what their sums over K are made of: blocks of 128. Whole
/// tiles go round the clusters. What is left when the last round would not be full has its sums cut into
/// pieces: `pieces` of `length` blocks, each for a cluster, and at their end `rest` blocks, which `helpers`
/// share, `share` blocks each, from the first tile's to the last one's. The first piece collects the others,
/// in a fixed order. It waits for clusters of lower numbers alone, which have begun before it.
struct Fp8Plan {
  int clusters = 0;  ///< that are launched
  int blocks = 0;    ///< of K
  int tile_rows = 0, tile_columns = 0;
  int band = 1;   ///< columns of tiles that are taken together, so that their operands stay in the cache
  int whole = 0;  ///< tiles, of the first
  int left = 0;   ///< tiles, of the last; with 0 the rest counts for nothing
  int pieces = 1, length = 0, rest = 0, helpers = 0, share = 1;

  /// Places for sums that are handed over.
  FATHOM_HOST_DEVICE int slots() const {
    return left == 0 ? 0 : (pieces - 1) * left + (rest > 0 ? helpers + left : 0);
  }
  FATHOM_HOST_DEVICE int piece_slot(int piece, int left_tile) const { return (piece - 1) * left + left_tile; }
  FATHOM_HOST_DEVICE int helper_slot(int helper, int left_tile) const {
    return (pieces - 1) * left + helper + left_tile;
  }
};

/// A part of a tile's sum: blocks [begin, end) of K. `slot`: where it is handed over, or -1: it is the tile,
/// once it has collected what others handed over.
struct Fp8Work {
  int tile = 0, begin = 0, end = 0, slot = -1;
  bool collects = false;
};

/// The work of one cluster, in order; all its threads walk alike.
class Fp8Walk {
 public:
  FATHOM_HOST_DEVICE Fp8Walk(const Fp8Plan& plan, int cluster)
      : plan_(plan), cluster_(cluster), tile_(cluster) {
    if (plan.left == 0) return;
    const int all = plan.left * plan.rest, number = cluster - plan.helpers;
    if (number < 0) {
      at_ = least(cluster * plan.share, all);
      stop_ = least(at_ + plan.share, all);
    } else if (number < plan.pieces * plan.left) {
      piece_ = plan.pieces - 1 - number / plan.left;
      left_tile_ = number % plan.left;
    }
  }

  FATHOM_HOST_DEVICE bool next(Fp8Work& work) {
    if (tile_ < plan_.whole) {
      work = {tile_, 0, plan_.blocks, -1, false};
      tile_ += plan_.clusters;
      return true;
    }
    if (at_ < stop_) {
      const int left_tile = at_ / plan_.rest, within = at_ % plan_.rest,
                count = least(plan_.rest - within, stop_ - at_), begin = plan_.pieces * plan_.length + within;
      work = {plan_.whole + left_tile, begin, begin + count, plan_.helper_slot(cluster_, left_tile), false};
      at_ += count;
      return true;
    }
    if (piece_ < 0) return false;
    const int begin = piece_ * plan_.length, end = least(begin + plan_.length, plan_.blocks);
    work = {plan_.whole + left_tile_, begin, end, piece_ == 0 ? -1 : plan_.piece_slot(piece_, left_tile_),
            piece_ == 0};
    piece_ = -1;
    return true;
  }

 private:
  FATHOM_HOST_DEVICE static int least(int a, int b) { return a < b ? a : b; }

  const Fp8Plan& plan_;
  int cluster_, tile_, at_ = 0, stop_ = 0, piece_ = -1, left_tile_ = 0;
};

/// Calls `take(slot)` for all that is handed over of a tile, in the order in which it is added.
template <typename Take>
FATHOM_HOST_DEVICE void for_handed_over(const Fp8Plan& plan, int tile, const Take& take) {
  const int left_tile = tile - plan.whole;
  for (int piece = 1; piece < plan.pieces; ++piece) take(plan.piece_slot(piece, left_tile));
  if (plan.rest == 0) return;
  const int first = left_tile * plan.rest / plan.share, last = ((left_tile + 1) * plan.rest - 1) / plan.share;
  for (int helper = first; helper <= last; ++helper) take(plan.helper_slot(helper, left_tile));
}

/// Of a tile among those of the product.
struct Fp8TilePlace {
  int row, column;
};

FATHOM_HOST_DEVICE inline Fp8TilePlace fp8_tile_place(const Fp8Plan& plan, int tile) {
  const int of_band = plan.tile_rows * plan.band, first = tile / of_band * plan.band,
            width = plan.tile_columns - first < plan.band ? plan.tile_columns - first : plan.band,
            within = tile % of_band;
  return {within / width, first + within % width};
}

/// What handing a sum over costs, in blocks: it is written to the second cache, or read from there.
constexpr int kHandOverBlocks = 4;
/// Sums are not cut into pieces of fewer blocks, nor into more pieces.
constexpr int kLeastPieceBlocks = 8, kMostPieces = 8;

/// Cuts what would not fill the last round, where that is through before.
inline void cut_last_round(Fp8Plan& plan, int clusters) {
  const int tiles = plan.tile_rows * plan.tile_columns, left = tiles % clusters, blocks = plan.blocks;
  const int most = std::min(kMostPieces, blocks / kLeastPieceBlocks);
  if (left == 0 || most == 0) return;
  const auto up = [](int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); };
  const int pieces = std::clamp(clusters / left, 1, most), helpers = clusters - pieces * left;
  const int even = up(blocks, pieces), even_time = pieces > 1 ? even + pieces * kHandOverBlocks : blocks;
  // With helpers all are busy for as long.
  const int helped = up(int64_t{left} * (blocks + kHandOverBlocks), clusters),
            rest = blocks - pieces * helped;
  const bool may_help = helpers > 0 && rest >= kLeastPieceBlocks;
  const int share = may_help ? up(int64_t{left} * rest, helpers) : 1;
  const int helped_time = may_help ? helped + (pieces + up(rest, share)) * kHandOverBlocks : blocks;
  if (std::min(even_time, helped_time) >= blocks) return;
  plan.whole = tiles - left;
  plan.left = left;
  plan.pieces = pieces;
  plan.clusters = clusters;
  plan.length = even;
  if (helped_time >= even_time) return;
  plan.length = helped;
  plan.rest = rest;
  plan.helpers = helpers;
  plan.share = share;
}

/// `clusters`: that run at once.
inline Fp8Plan make_fp8_plan(int tile_rows, int tile_columns, int band, int blocks, int clusters) {
  Fp8Plan plan;
  plan.tile_rows = tile_rows;
  plan.tile_columns = tile_columns;
  plan.band = std::clamp(band, 1, tile_columns);
  plan.blocks = blocks;
  plan.whole = tile_rows * tile_columns;
  plan.clusters = std::min(plan.whole, clusters);
  cut_last_round(plan, clusters);
  return plan;
}

}  // namespace fathom::cuda
