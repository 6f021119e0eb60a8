#include "cuda/tile_shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace fathom::tile_shares_test {
namespace {

using cuda::kPairs;
using cuda::PairPieces;
using cuda::TilePiece;
using cuda::TileShares;

/// What all pairs take, by pair.
std::vector<std::vector<TilePiece>> all_pieces(const TileShares& shares, uint32_t pairs) {
  std::vector<std::vector<TilePiece>> pieces(pairs);
  for (uint32_t pair = 0; pair < pairs; ++pair)
    for (PairPieces next(shares, pair, pairs); !next.done(); next.advance())
      pieces[pair].push_back(next.piece());
  return pieces;
}

/// Each step of each tile once; each part that is left is added by who has the tile's first steps, in order,
/// and left by a pair that begins no later.
void expect_all_is_summed(const TileShares& shares, uint32_t pairs) {
  struct Left {
    uint32_t tile, first, steps, pair;
  };
  std::vector<uint32_t> summed(shares.tiles, 0);
  std::vector<Left> left(shares.sharers, Left{0, 0, 0, pairs});
  const auto pieces = all_pieces(shares, pairs);
  for (uint32_t pair = 0; pair < pairs; ++pair)
    for (const TilePiece& piece : pieces[pair]) {
      ASSERT_LT(piece.tile, shares.tiles);
      ASSERT_GT(piece.steps, 0U);
      ASSERT_LE(piece.first + piece.steps, shares.steps);
      summed[piece.tile] += piece.steps;
      if (piece.first == 0) continue;
      ASSERT_EQ(left[piece.first_part - 1].pair, pairs) << "two parts in one place";
      left[piece.first_part - 1] = {piece.tile, piece.first, piece.steps, pair};
    }
  for (uint32_t tile = 0; tile < shares.tiles; ++tile) ASSERT_EQ(summed[tile], shares.steps) << tile;
  size_t added = 0;
  for (uint32_t pair = 0; pair < pairs; ++pair)
    for (const TilePiece& piece : pieces[pair]) {
      if (piece.first > 0) continue;
      uint32_t reached = piece.steps;
      for (uint32_t part = piece.first_part; part < piece.last_part; ++part, ++added) {
        ASSERT_EQ(left[part].tile, piece.tile);
        ASSERT_EQ(left[part].first, reached);
        ASSERT_LT(left[part].pair, pair);
        reached += left[part].steps;
      }
      ASSERT_EQ(reached, shares.steps) << "of tile " << piece.tile;
    }
  EXPECT_EQ(added, static_cast<size_t>(std::count_if(left.begin(), left.end(),
                                                     [&](const Left& part) { return part.pair < pairs; })));
}

TEST(TileShares, EveryStepIsTakenOnce) {
  size_t shared = 0;
  for (uint32_t tiles = 0; tiles < 5 * kPairs; ++tiles)
    for (const uint32_t steps : {1U, 2U, 3U, 4U, 7U, 16U, 44U, 52U, 88U, 129U, 1000U}) {
      const TileShares shares = cuda::share_tiles(tiles, steps, true);
      shared += shares.sharers > 0 ? 1 : 0;
      SCOPED_TRACE(::testing::Message() << tiles << " tiles of " << steps << " steps");
      expect_all_is_summed(shares, kPairs);
      if (HasFatalFailure()) return;
    }
  EXPECT_GT(shared, 1000U);
}

TEST(TileShares, WholeTilesAreTakenByAsManyPairsAsThereAre) {
  for (const uint32_t pairs : {1U, 7U, 66U})
    for (const uint32_t tiles : {0U, 1U, 65U, 66U, 67U, 200U})
      expect_all_is_summed(cuda::share_tiles(tiles, 16, false), pairs);
}

TEST(TileShares, SharingIsNeverLongerAndEven) {
  for (uint32_t tiles = 1; tiles < 5 * kPairs; ++tiles)
    for (const uint32_t steps : {1U, 16U, 44U, 88U}) {
      const TileShares shares = cuda::share_tiles(tiles, steps, true);
      EXPECT_LE(shares.duration(), cuda::over(tiles, kPairs) * steps);
      if (shares.sharers == 0) continue;
      uint32_t least = UINT32_MAX, most = 0;
      for (uint32_t i = 0; i < shares.sharers; ++i) {
        const uint32_t share = shares.begin(i + 1) - shares.begin(i);
        least = std::min(least, share), most = std::max(most, share);
      }
      EXPECT_LE(most - least, 1U);
    }
}

/// 3,277 rows of a decoder of width 1,024: the shapes that docs/performance.md times.
TEST(TileShares, ThatOfADecodersProducts) {
  const auto large = [](int64_t columns, int64_t reduced) {
    EXPECT_TRUE(cuda::takes_large_tiles(3277, columns, reduced, true));
    return cuda::large_shares(3277, columns, reduced, true);
  };
  EXPECT_EQ(large(3072, 1024).whole, kPairs);
  EXPECT_EQ(large(3072, 1024).sharers, kPairs);
  EXPECT_EQ(large(5632, 1024).whole, 3 * kPairs);
  EXPECT_EQ(large(1024, 2816).whole, 0U);
  EXPECT_EQ(large(1024, 2816).sharers, kPairs);
  EXPECT_EQ(large(1024, 1024).sharers, 0U);  // no longer than what it would cost
}

}  // namespace
}  // namespace fathom::tile_shares_test
