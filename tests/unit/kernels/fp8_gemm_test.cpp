// Our kernel's products of matrices in FP8: how the work is shared out, and what comes of it.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cuda/fp8_schedule.h"
#include "fp8_fixture.h"

namespace fathom::fp8_gemm_test {
namespace {

using namespace testing;

using cuda::Fp8Plan;
using cuda::Fp8Walk;
using cuda::Fp8Work;
using kernels::BlocksThatShare;

/// What all clusters of a plan do, tile by tile.
struct Shared {
  std::map<int, std::vector<int>> times;           ///< of a tile: how often each block is multiplied
  std::map<int, int> results, collector;           ///< of a tile
  std::map<int, std::pair<int, int>> handed_over;  ///< of a slot: tile and cluster
  std::vector<int> blocks;                         ///< of a cluster

  explicit Shared(const Fp8Plan& plan) {
    for (int cluster = 0; cluster < plan.clusters; ++cluster) {
      Fp8Walk walk(plan, cluster);
      blocks.push_back(0);
      for (Fp8Work work; walk.next(work);) add(plan, cluster, work);
    }
  }

 private:
  void add(const Fp8Plan& plan, int cluster, const Fp8Work& work) {
    EXPECT_LT(work.begin, work.end);
    auto& of_tile = times[work.tile];
    of_tile.resize(static_cast<size_t>(plan.blocks));
    for (int block = work.begin; block < work.end; ++block) ++of_tile.at(static_cast<size_t>(block));
    blocks.back() += work.end - work.begin;
    if (work.slot < 0) {
      ++results[work.tile];
      if (work.collects) collector[work.tile] = cluster;
      return;
    }
    EXPECT_LT(work.slot, plan.slots());
    EXPECT_TRUE(handed_over.emplace(work.slot, std::pair{work.tile, cluster}).second) << "a slot twice";
  }
};

/// False, with words, unless each tile is whole and nobody waits for who may not have begun.
void expect_complete(const Fp8Plan& plan, const std::string& where) {
  Shared shared(plan);
  std::set<std::pair<int, int>> places;
  for (int tile = 0; tile < plan.tile_rows * plan.tile_columns; ++tile) {
    const auto [row, column] = cuda::fp8_tile_place(plan, tile);
    EXPECT_TRUE(row >= 0 && row < plan.tile_rows && column >= 0 && column < plan.tile_columns) << where;
    EXPECT_TRUE(places.emplace(row, column).second) << where;
    EXPECT_EQ(shared.times[tile], std::vector<int>(static_cast<size_t>(plan.blocks), 1)) << where;
    EXPECT_EQ(shared.results[tile], 1) << where;
    EXPECT_EQ(shared.collector.count(tile), tile < plan.whole ? 0u : 1u) << where;
    if (tile < plan.whole) continue;
    cuda::for_handed_over(plan, tile, [&](int slot) {
      const auto found = shared.handed_over.find(slot);
      ASSERT_NE(found, shared.handed_over.end()) << where;
      EXPECT_EQ(found->second.first, tile) << where;
      EXPECT_LT(found->second.second, shared.collector[tile]) << where;
      shared.handed_over.erase(found);
    });
  }
  EXPECT_TRUE(shared.handed_over.empty()) << where << ": nobody reads it";
}

TEST(Fp8Schedule, EachBlockOfEachTileIsMultipliedOnce) {
  int num_cut = 0;
  for (const int clusters : {1, 2, 7, 66, 132})
    for (const int rows : {1, 2, 3, 5, 12, 22})
      for (const int columns : {1, 2, 4, 7, 11})
        for (const int blocks : {1, 8, 17, 44, 128}) {
          const Fp8Plan plan = cuda::make_fp8_plan(rows, columns, 3, blocks, clusters);
          num_cut += plan.left > 0 ? 1 : 0;
          expect_complete(plan, std::to_string(rows) + " x " + std::to_string(columns) + " tiles of " +
                                    std::to_string(blocks) + " by " + std::to_string(clusters));
        }
  EXPECT_GT(num_cut, 50);
}

/// Gradients of the weights of a decoder 1,024 wide, of 16,384 tokens, on 132 multiprocessors.
TEST(Fp8Schedule, FewTilesWithLongSumsKeepAllBusy) {
  for (const auto& [rows, columns] : {std::pair{12, 4}, {4, 4}, {22, 4}, {4, 11}}) {
    const Fp8Plan plan = cuda::make_fp8_plan(rows, columns, 4, 128, 66);
    const Shared shared(plan);
    const int longest = *std::max_element(shared.blocks.begin(), shared.blocks.end());
    EXPECT_LT(longest * 66, rows * columns * 128 * 1.06) << rows << " x " << columns;
  }
  EXPECT_EQ(cuda::make_fp8_plan(64, 4, 64, 8, 66).left, 0) << "sums too short to cut";
  EXPECT_EQ(cuda::make_fp8_plan(66, 4, 64, 128, 66).left, 0) << "rounds are full";
}

/// Small whole numbers times a power of two for each tile: whoever sums them in whatever order has no digit
/// to round.
at::Tensor whole_numbers(int64_t rows, int64_t columns) {
  const auto tiles_of = [](int64_t size) { return (size + 127) / 128; };
  const at::Tensor size = at::randint(0, 2, {tiles_of(rows), tiles_of(columns)}).to(at::kFloat).exp2();
  return at::randint(-2, 3, {rows, columns}).to(at::kFloat) *
         size.repeat_interleave(128, 0).narrow(0, 0, rows).repeat_interleave(128, 1).narrow(1, 0, columns);
}

struct Factors {
  Fp8Matrix left, right;

  Factors(const at::Tensor& a, const at::Tensor& b, at::ScalarType left_type, at::Device device)
      : left(kernels::fp8_tiles(a.to(device), {.type = left_type, .plain = TileScales::kByRow}).plain),
        right(kernels::fp8_tiles(b.to(device), {.plain = TileScales::kByTile}).plain) {}

  at::Tensor room(at::ScalarType type) const {
    return at::full({left.values_RK.size(0), right.values_RK.size(0)}, 7.0,
                    left.values_RK.options().dtype(type));
  }
  at::Tensor product(at::ScalarType type, BlocksThatShare sharing = BlocksThatShare::kAsTheSizesAsk,
                     const at::Tensor& bias = {}) const {
    const at::Tensor result = room(type);
    EXPECT_TRUE(kernels::fp8_gemm(left, right, bias, result, sharing)) << "the kernel does not take these";
    return result;
  }
};

constexpr BlocksThatShare kSharings[] = {BlocksThatShare::kAsTheSizesAsk, BlocksThatShare::kOne,
                                         BlocksThatShare::kTwo};

/// Rows, columns and what is summed over: one tile, ends of every kind, several rounds of tiles, and sums
/// that are cut into pieces, evenly or with helpers.
struct GemmShape {
  int64_t rows, columns, inner;
  std::string name() const {
    return std::to_string(rows) + " x " + std::to_string(columns) + " x " + std::to_string(inner);
  }
};
const std::vector<GemmShape> kGemmShapes = {
    {256, 128, 128},    {16, 16, 16},       {128, 128, 384},   {272, 144, 48},     {144, 272, 80},
    {1024, 640, 1040},  {2064, 1168, 272},  {4096, 2816, 512}, {1040, 1024, 8192}, {1024, 2816, 8208},
    {3072, 1024, 8192}, {5632, 1024, 4112}, {256, 128, 16384}};

class CudaFp8Gemm : public CudaFp8 {
 protected:
  void SetUp() override {
    CudaFp8::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    const Factors one(at::randn({16, 16}), at::randn({16, 16}), at::kFloat8_e4m3fn, device_);
    if (!kernels::fp8_gemm(one.left, one.right, {}, one.room(at::kFloat)))
      GTEST_SKIP() << "our kernel is for Hopper";
  }
};

TEST_F(CudaFp8Gemm, SumsOfWholeNumbersAreExact) {
  for (const GemmShape& shape : kGemmShapes) {
    const at::Tensor a = whole_numbers(shape.rows, shape.inner),
                     b = whole_numbers(shape.columns, shape.inner);
    const at::Tensor expected = a.to(device_).to(at::kDouble).matmul(b.to(device_).to(at::kDouble).t());
    const at::Tensor bias = at::randint(-8, 9, {shape.columns}).to(at::kBFloat16).to(device_);
    for (const auto type : kTypes) {
      const Factors factors(a, b, type, device_);
      for (const auto sharing : kSharings) {
        const std::string where =
            shape.name() + " " + c10::toString(type) + " by " + std::to_string(static_cast<int64_t>(sharing));
        EXPECT_TRUE(at::equal(factors.product(at::kFloat, sharing), expected.to(at::kFloat))) << where;
        EXPECT_TRUE(at::equal(factors.product(at::kBFloat16, sharing), expected.to(at::kBFloat16))) << where;
        EXPECT_TRUE(at::equal(factors.product(at::kBFloat16, sharing, bias),
                              expected.add(bias.to(at::kDouble)).to(at::kBFloat16)))
            << where << " with a bias";
      }
    }
  }
}

/// Tensor cores line up what they add by its largest summand and keep some 14 bits of it (DeepSeek-V3, 2024,
/// section 3.3.2); what they have summed over 128 is added in float32. So errors are small beside the sum of
/// all magnitudes.
TEST_F(CudaFp8Gemm, SumsAreThoseOfFloat32) {
  constexpr double kOfMagnitudes = 1.0 / 1024, kOfBfloat16 = 1.0 / 256;
  for (const GemmShape& shape : kGemmShapes)
    for (const auto type : kTypes) {
      const at::Tensor a = uneven(shape.rows, shape.inner), b = uneven(shape.columns, shape.inner);
      const Factors factors(a, b, type, device_);
      const at::Tensor left = exact(factors.left, TileScales::kByRow).to(at::kDouble),
                       right = exact(factors.right, TileScales::kByTile).to(at::kDouble);
      const at::Tensor expected = left.matmul(right.t()),
                       allowed = left.abs().matmul(right.abs().t()) * kOfMagnitudes + 1e-30;
      const at::Tensor wide = factors.product(at::kFloat), narrow = factors.product(at::kBFloat16);
      EXPECT_LE((wide - expected).abs().div(allowed).max().item<double>(), 1) << shape.name();
      EXPECT_LE((narrow - expected).abs().div(allowed + expected.abs() * kOfBfloat16).max().item<double>(), 1)
          << shape.name();
    }
}

TEST_F(CudaFp8Gemm, EveryRunMakesTheSameBits) {
  for (const GemmShape& shape : kGemmShapes) {
    const Factors factors(uneven(shape.rows, shape.inner), uneven(shape.columns, shape.inner),
                          at::kFloat8_e4m3fn, device_);
    const at::Tensor first = factors.product(at::kFloat);
    for (int run = 0; run < 5; ++run)
      EXPECT_TRUE(at::equal(factors.product(at::kFloat), first)) << shape.name();
  }
}

/// In exactly the rows, or columns, of the tile that has no scale.
TEST_F(CudaFp8Gemm, ATileWithoutAScaleMakesItsRowsOrColumnsNan) {
  for (const GemmShape& shape : {GemmShape{528, 400, 272}, {400, 272, 16384}}) {
    const at::Tensor a = at::randn({shape.rows, shape.inner}), b = at::randn({shape.columns, shape.inner});
    at::Tensor bad_a = a.clone(), bad_b = b.clone();
    bad_a[300][shape.inner - 1] = kInfinity;
    bad_b[130][7] = std::numeric_limits<double>::quiet_NaN();
    const auto tile_of = [&](int64_t size, int64_t tile) {
      return at::arange(size, at::TensorOptions().device(device_)).div(128, "floor").eq(tile);
    };
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor rows = Factors(bad_a, b, at::kFloat8_e4m3fn, device_).product(type).isnan(),
                       columns = Factors(a, bad_b, at::kFloat8_e4m3fn, device_).product(type).isnan();
      EXPECT_TRUE(at::equal(rows, tile_of(shape.rows, 2).unsqueeze(1).expand_as(rows))) << shape.name();
      EXPECT_TRUE(at::equal(columns, tile_of(shape.columns, 1).unsqueeze(0).expand_as(columns)))
          << shape.name();
    }
  }
}

/// One after the other on a stream: flags and sums that are handed over belong to one product.
TEST_F(CudaFp8Gemm, CutSumsFollowEachOther) {
  const Factors first(whole_numbers(1024, 8192), whole_numbers(1024, 8192), at::kFloat8_e4m3fn, device_),
      second(whole_numbers(3072, 8192), whole_numbers(1024, 8192), at::kFloat8_e4m3fn, device_);
  const at::Tensor expected_first = first.product(at::kFloat), expected_second = second.product(at::kFloat);
  for (int run = 0; run < 20; ++run) {
    const at::Tensor a = first.product(at::kFloat), b = second.product(at::kFloat);
    EXPECT_TRUE(at::equal(a, expected_first) && at::equal(b, expected_second)) << run;
  }
}

TEST_F(CudaFp8Gemm, WritesNothingBesideTheResult) {
  const int64_t rows = 272, columns = 144;
  const Factors factors(whole_numbers(rows, 256), whole_numbers(columns, 256), at::kFloat8_e4m3fn, device_);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const int64_t vector = type == at::kFloat ? 4 : 8, numbers = rows * columns;
    const at::Tensor bucket = at::full({numbers + 2 * vector}, 7.0, factors.room(type).options());
    const at::Tensor result = bucket.narrow(0, vector, numbers).view({rows, columns});
    ASSERT_TRUE(kernels::fp8_gemm(factors.left, factors.right, {}, result));
    EXPECT_TRUE(at::equal(result, factors.product(type)));
    EXPECT_TRUE(bucket.narrow(0, 0, vector).eq(7).all().item<bool>());
    EXPECT_TRUE(bucket.narrow(0, vector + numbers, vector).eq(7).all().item<bool>());
  }
}

TEST_F(CudaFp8Gemm, LeavesToOthersWhatItDoesNotTake) {
  const Factors factors(whole_numbers(64, 64), whole_numbers(64, 64), at::kFloat8_e4m3fn, device_);
  const at::Tensor bucket = at::full({64 * 64 + 4}, 7.0, at::TensorOptions().device(device_));
  at::Tensor between = bucket.narrow(0, 1, 64 * 64).view({64, 64});
  EXPECT_FALSE(kernels::fp8_gemm(factors.left, factors.right, {}, between));
  EXPECT_TRUE(bucket.eq(7).all().item<bool>());
  kernels::fp8_product(factors.left, factors.right, {}, between);
  EXPECT_LT((between - factors.product(at::kFloat)).abs().max().item<double>(), 1e-3);
}

}  // namespace
}  // namespace fathom::fp8_gemm_test
