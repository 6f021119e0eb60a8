// How the blocks of a product divide its tiles among themselves. The host computes it to choose a kernel, the
// kernel again with the count that it alone knows. No CUDA here: tests on a CPU read it.
#pragma once

#include <cstdint>

#include "cuda/element_type.h"
#include "tensor/host_device.h"

namespace fathom::cuda {

/// Blocks take tiles in pairs, one above the other, whose loads they share.
constexpr uint32_t kPairs = kMultiprocessors / 2;
/// A step of a tile's sum: so many elements of the reduction.
constexpr uint32_t kStepDepth = 64;
/// Of a block's large tile.
constexpr uint32_t kLargeRows = 128, kLargeColumns = 256;
/// Each of the warp groups that make one has its half of the rows.
constexpr uint32_t kTileGroups = 2;
/// Memory in which each block can leave a part of a large tile: sums in float32, and a flag a warp group.
constexpr int64_t kPartSums = int64_t{kLargeRows} * kLargeColumns,
                  kPartsBytes = kMultiprocessors * (4 * kPartSums + 8 * kTileGroups);

FATHOM_HOST_DEVICE constexpr uint32_t over(uint32_t length, uint32_t part) {
  return (length + part - 1) / part;
}

/// Pairs of tiles are taken whole, in turns. Where the last turn would leave many pairs of blocks idle, its
/// tiles and those of the turn before it are divided by steps instead, evenly: a pair's share may begin
/// within one tile and end within another. Who has a tile's first steps adds what the others leave, and
/// writes it ("two-tile Stream-K" of Osama et al., https://arxiv.org/abs/2301.03598).
struct TileShares {
  uint32_t tiles = 0;    ///< pairs of them
  uint32_t steps = 1;    ///< of each
  uint32_t whole = 0;    ///< the first of the tiles, which are taken whole
  uint32_t sharers = 0;  ///< pairs of blocks that divide the steps of the others; 0: there are none

  /// Of the steps of divided tiles, one tile's behind the other's: where a share begins, or, for `sharers`,
  /// where all end.
  FATHOM_HOST_DEVICE uint32_t begin(uint32_t sharer) const {
    const uint32_t all = (tiles - whole) * steps, more = all % sharers;
    return all / sharers * sharer + (sharer < more ? sharer : more);
  }

  /// The time until all is done, in steps. What sharing costs was estimated for large tiles, whose step takes
  /// two thirds of a microsecond and whose sums in float32 are 128 KB a block: a part is written, waited for
  /// and read.
  FATHOM_HOST_DEVICE uint32_t duration() const {
    constexpr uint32_t kMeeting = 3, kPart = 2;
    const uint32_t alone = over(whole, kPairs) * steps, divided = tiles - whole;
    if (sharers == 0) return alone;
    return alone + over(divided * steps, sharers) + kMeeting + kPart * over(sharers, divided);
  }
};

/// The shorter of both ways for `tiles` pairs of large tiles of at most 2²⁴ `steps`.
FATHOM_HOST_DEVICE inline TileShares share_tiles(uint32_t tiles, uint32_t steps, bool can_share) {
  constexpr uint32_t kMostParts = 4;  // of a tile: the one that adds them reads them one after the other
  const TileShares alone = {tiles, steps, tiles, 0};
  const uint32_t last = tiles % kPairs;
  if (!can_share || last == 0) return alone;
  TileShares shared = alone;
  shared.whole = tiles < kPairs ? 0 : tiles - last - kPairs;
  const uint32_t divided = tiles - shared.whole, parts = steps < kMostParts ? steps : kMostParts;
  shared.sharers = divided * parts < kPairs ? divided * parts : kPairs;
  return shared.duration() < alone.duration() ? shared : alone;
}

/// One tile, or what a share has of it.
struct TilePiece {
  uint32_t tile = 0;
  uint32_t first = 0;  ///< of the tile's steps
  uint32_t steps = 0;
  /// With its first steps goes the adding of parts [first_part, last_part), in this order; a piece without
  /// them is left as part `first_part` - 1, its share's number.
  uint32_t first_part = 0;
  uint32_t last_part = 0;
};

/// What one pair of blocks takes, piece after piece. Pairs with lower numbers, which begin no later, have the
/// later shares, so whoever waits for a part waits for one that has begun.
class PairPieces {
 public:
  PairPieces() = default;
  /// Of `pairs` that take whole tiles in turns: kPairs of them where tiles are shared.
  FATHOM_HOST_DEVICE PairPieces(const TileShares& shares, uint32_t pair, uint32_t pairs)
      : shares_(shares), tile_(pair), pairs_(pairs) {
    if (pair >= shares.sharers) return;
    sharer_ = shares.sharers - 1 - pair;
    step_ = shares.begin(sharer_);
    end_ = shares.begin(sharer_ + 1);
  }

  FATHOM_HOST_DEVICE bool done() const { return tile_ >= shares_.whole && step_ >= end_; }

  /// Unless it is done.
  FATHOM_HOST_DEVICE TilePiece piece() const {
    if (tile_ < shares_.whole) return {tile_, 0, shares_.steps, 0, 0};
    const uint32_t tile = step_ / shares_.steps, begin = tile * shares_.steps, end = begin + shares_.steps;
    TilePiece piece = {shares_.whole + tile, step_ - begin, (end < end_ ? end : end_) - step_, sharer_ + 1,
                       sharer_ + 1};
    if (piece.first == 0)
      while (shares_.begin(piece.last_part) < end) ++piece.last_part;
    return piece;
  }

  FATHOM_HOST_DEVICE void advance() {
    if (tile_ < shares_.whole)
      tile_ += pairs_;
    else
      step_ = (step_ / shares_.steps + 1) * shares_.steps;
  }

 private:
  TileShares shares_;
  uint32_t tile_ = 0, pairs_ = 1;
  uint32_t sharer_ = 0, step_ = 0, end_ = 0;
};

/// Pairs of tiles that cover [rows, columns].
inline int64_t pair_tiles(int64_t rows, int64_t columns, int64_t tile_rows, int64_t tile_columns) {
  return (rows + 2 * tile_rows - 1) / (2 * tile_rows) * ((columns + tile_columns - 1) / tile_columns);
}

/// In which pairs of blocks take all tiles.
inline int64_t pair_turns(int64_t rows, int64_t columns, int64_t tile_rows, int64_t tile_columns) {
  return (pair_tiles(rows, columns, tile_rows, tile_columns) + kPairs - 1) / kPairs;
}

/// How large tiles are shared that sum up `reduced` elements each.
inline TileShares large_shares(int64_t rows, int64_t columns, int64_t reduced, bool can_share) {
  return share_tiles(static_cast<uint32_t>(pair_tiles(rows, columns, kLargeRows, kLargeColumns)),
                     static_cast<uint32_t>((reduced + kStepDepth - 1) / kStepDepth), can_share);
}

/// The tiles that are through first: a step of a large tile takes as long as three of a small one (four times
/// the products, half as many bytes to each).
inline bool takes_large_tiles(int64_t rows, int64_t columns, int64_t reduced, bool can_share) {
  return 3 * int64_t{large_shares(rows, columns, reduced, can_share).duration()} <=
         pair_turns(rows, columns, 64, 128) * ((reduced + kStepDepth - 1) / kStepDepth);
}

}  // namespace fathom::cuda
