#include "kernels/counted_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/counted_gradients.h"
#include "tensor/random_keys.h"

namespace fathom::counted_rows_test {
namespace {

using kernels::CountedRows;
using kernels::HeadLayout;

constexpr int64_t kSequences = 3, kTokens = 70, kDim = 64, kInner = 32, kHeadSize = 16;
constexpr HeadLayout kLayout = {4, 2};

/// Everything a layer with a gate does to its rows, one operation after the other.
struct Pass {
  at::Tensor score, sum, counts, place, slot, start, all, normed, qkv, keys, values, attended, added, product,
      gated, dropped, merged, merged_over;
};

struct Inputs {
  at::Tensor x = at::randn({kSequences, kTokens, kDim});
  at::Tensor both = at::randn({kSequences, kTokens, 2 * kInner});
  at::Tensor shift = at::randn({2 * kInner}), out = at::randn({kInner}), bias = at::zeros({1});
  at::Tensor weight = at::rand({kDim}) + 0.5;
  at::Tensor qkv = at::randn({(kLayout.heads + 2 * kLayout.kv_heads) * kHeadSize, kDim}) / 8;
  at::Tensor up = at::randn({2 * 3 * kDim, kDim}) / 8;
  at::Tensor down = at::randn({kDim, 3 * kDim}) / 8;
};

/// Rows in use, the others set to 0.
at::Tensor used(const at::Tensor& x, const CountedRows& rows) {
  const int64_t count = rows.all()[-1].item<int64_t>();
  return x.cpu().narrow(0, 0, count).clone();
}

Pass pass(const Inputs& inputs, at::Device device, at::ScalarType type, const at::Tensor& active = {},
          double explore = 0) {
  const auto moved = [&](const at::Tensor& x) { return x.to(device, type); };
  Pass out;
  const at::Tensor x = moved(inputs.x), weight = moved(inputs.weight);
  auto sum = at::empty({kSequences, 1, kInner}, x.options().dtype(at::kFloat));
  auto counts = at::zeros({3}, x.options().dtype(at::kDouble));
  out.score = kernels::causal_scores({.both = inputs.both.to(device)},
                                     {moved(inputs.shift), moved(inputs.out), moved(inputs.bias)}, sum);
  const kernels::RowChoice choice = {.score_BT = active.defined() ? at::Tensor() : out.score,
                                     .active_BT = active.defined() ? active.to(device) : active,
                                     .key_B = explore > 0 ? at::arange(kSequences).to(device) : at::Tensor(),
                                     .stream = int64_t{1} << 44,
                                     .explore = explore};
  const CountedRows rows = kernels::chosen_rows(choice, &counts).first;
  out.sum = sum;
  out.counts = counts;
  out.start = rows.start_S1;
  out.all = rows.all()[-1];
  out.slot = rows.slot_N;
  out.place = used(rows.place_N, rows);
  const auto normed = kernels::gathered_rms_norm(x, weight, 1e-5, rows);
  out.normed = used(normed, rows);
  auto qkv = kernels::counted_linear(normed, moved(inputs.qkv), rows);
  const auto angle = at::outer(at::arange(kTokens).to(at::kFloat), at::rand({kHeadSize / 2}).fill_(0.3));
  auto keys = at::zeros({kSequences, kLayout.kv_heads, kTokens + 5, kHeadSize}, x.options());
  auto values = at::zeros_like(keys);
  kernels::counted_rope(qkv, angle.cos().to(device), angle.sin().to(device), kLayout, rows,
                        explore > 0 ? at::Tensor() : keys, explore > 0 ? at::Tensor() : values);
  out.qkv = used(qkv, rows);
  out.keys = keys;
  out.values = values;
  const auto attended = kernels::counted_attention(qkv, kLayout, /*causal=*/true, rows).y;
  out.attended = used(attended, rows);
  const auto [h, h_normed] = kernels::added_rms_norm(x, attended, weight, 1e-5, rows);
  out.added = used(h, rows);
  const auto gated = kernels::counted_swiglu(kernels::counted_linear(h_normed, moved(inputs.up), rows), rows);
  out.gated = used(gated, rows);
  auto product = kernels::counted_linear(gated, moved(inputs.down), rows);
  out.product = used(product, rows);
  product =
      kernels::counted_dropout(product, at::arange(kSequences).to(device), {0.3, 0.4, 9}, rows, rows.all());
  out.dropped = used(product, rows);
  out.merged = kernels::merged_rows(x, h, product, rows);
  out.merged_over = x.clone();
  kernels::merge_rows(out.merged_over, h, product, rows);
  return out;
}

TEST(CountedRows, HoldTheChosenTokensInOrder) {
  auto active = at::zeros({3, 4}, at::kBool);
  active[0][1] = active[0][3] = active[2][0] = true;
  auto counts = at::zeros({3}, at::kDouble);
  const CountedRows rows = kernels::chosen_rows({.active_BT = active}, &counts).first;
  EXPECT_TRUE(at::equal(rows.start_S1, at::tensor({0, 2, 2, 3}, at::kInt)));
  EXPECT_TRUE(at::equal(rows.place_N.narrow(0, 0, 3), at::tensor({1, 3, 8}, at::kInt)));
  EXPECT_TRUE(at::equal(rows.slot_N, at::tensor({-1, 0, -1, 1, -1, -1, -1, -1, 2, -1, -1, -1}, at::kInt)));
  EXPECT_TRUE(at::equal(counts, at::tensor({3.0, 12.0, 0.0}, at::kDouble)));
}

TEST(CountedRows, TokensWithoutARowPassAsTheyAre) {
  const Inputs inputs;
  const auto active = at::rand({kSequences, kTokens}).lt(0.4);
  const Pass out = pass(inputs, at::kCPU, at::kFloat, active);
  const auto changed = out.merged.ne(inputs.x).any(2);
  EXPECT_TRUE(at::equal(changed, active));
  EXPECT_TRUE(at::equal(out.merged_over, out.merged));
}

TEST(CountedRows, ExploredTokensStandBehindTheActiveOnes) {
  const auto active = at::rand({3, 40}).lt(0.4), key_B = at::arange(3) * 77;
  const CountedRows rows =
      kernels::chosen_rows({.active_BT = active, .key_B = key_B, .stream = 5, .explore = 0.5}).first;
  const auto explored = keyed_uniform(key_B, {40}, 5).lt(0.5) & active.logical_not();
  const auto count = active.sum().item<int64_t>();
  const auto places = [](const at::Tensor& mask) { return mask.flatten().nonzero().squeeze(1).to(at::kInt); };
  EXPECT_EQ(rows.start_S1[-1].item<int64_t>(), count);
  EXPECT_EQ(rows.all()[-1].item<int64_t>(), count + explored.sum().item<int64_t>());
  EXPECT_TRUE(at::equal(rows.place_N.slice(0, 0, count), places(active)));
  EXPECT_TRUE(at::equal(rows.place_N.slice(0, count, rows.all()[-1].item<int64_t>()), places(explored)));
  EXPECT_TRUE(at::equal(rows.slot_N.ge(0).view({3, 40}), active | explored));
}

TEST(CountedRows, PaddingIsNoToken) {
  const auto present = at::tensor({1, 1, 0, 1, 0, 0}).view({2, 3}).to(at::kBool);
  const auto score = at::tensor({1.0F, -1.0F, 2.0F, -2.0F, 3.0F, -3.0F}).view({2, 3});
  auto counts = at::zeros({3}, at::kDouble);
  const auto [rows, active] = kernels::chosen_rows(
      {.score_BT = score, .present_BT = present, .key_B = at::arange(2), .stream = 5, .explore = 1.0},
      &counts);
  EXPECT_TRUE(at::equal(active, at::tensor({1, 0, 0, 0, 0, 0}).view({2, 3}).to(at::kBool)));
  EXPECT_TRUE(at::equal(rows.slot_N, at::tensor({0, 1, -2, 2, -2, -2}, at::kInt)));
  EXPECT_EQ(counts[1].item<double>(), 3);
  const auto entropy = [](double logit) {
    const double p = 1 / (1 + std::exp(-logit));
    return -(p * std::log2(p) + (1 - p) * std::log2(1 - p));
  };
  EXPECT_NEAR(counts[2].item<double>(), 2 * entropy(1) + entropy(2), 1e-6);
}

TEST(CountedRows, NoTokenAtAll) {
  const Inputs inputs;
  const Pass out = pass(inputs, at::kCPU, at::kFloat, at::zeros({kSequences, kTokens}, at::kBool));
  EXPECT_TRUE(at::equal(out.merged, inputs.x));
}

/// Rows of these tokens: none is in both.
CountedRows rows_of(const at::Tensor& active_BT, const at::Tensor& explored_BT) {
  const auto places = [](const at::Tensor& mask) { return mask.flatten().nonzero().squeeze(1); };
  const auto used = at::cat({places(active_BT), places(explored_BT)});
  const int64_t room = active_BT.numel(), count = used.numel();
  CountedRows rows = {.place_N = at::zeros({room}, at::kInt),
                      .slot_N = at::full({room}, -1, at::kInt),
                      .start_S1 = at::zeros({active_BT.size(0) + 1}, at::kInt)};
  rows.place_N.narrow(0, 0, count).copy_(used);
  rows.slot_N.index_copy_(0, used, at::arange(count, at::kInt));
  rows.start_S1.slice(0, 1).copy_(active_BT.sum(1).cumsum(0));
  rows.used_S1 = rows.start_S1.clone();
  rows.used_S1.select(0, -1).fill_(count);
  return rows;
}

CountedRows moved(const CountedRows& rows, at::Device device) {
  return {.place_N = rows.place_N.to(device),
          .slot_N = rows.slot_N.to(device),
          .start_S1 = rows.start_S1.to(device),
          .used_S1 = rows.used_S1.to(device)};
}

/// Active and explored tokens, as masks [B, T], that differ in what explored ones have before and beside
/// them.
struct Exploration {
  const char* name;
  at::Tensor active_BT, explored_BT;
};
std::vector<Exploration> explorations() {
  const auto some = [](int64_t sequences, int64_t tokens, double share) {
    return at::rand({sequences, tokens}).lt(share);
  };
  const auto none = at::zeros({3, 150}, at::kBool);
  std::vector<Exploration> cases = {{"none", some(3, 150, 0.4), none}};
  const auto add = [&](const char* name, const at::Tensor& active_BT, const at::Tensor& explored_BT) {
    cases.push_back({name, active_BT & explored_BT.logical_not(), explored_BT});
  };
  auto one = none.clone();
  one[1][70] = true;
  add("one", some(3, 150, 0.4), one);
  auto seventeen = none.clone();
  seventeen[1].slice(0, 3, 3 + 8 * 17, 8).fill_(true);
  add("seventeen", some(3, 150, 0.4), seventeen);
  add("several tiles a sequence", some(3, 150, 0.6), some(3, 150, 0.4));
  add("more keys than the warps of a block take at once", some(2, 700, 0.8), some(2, 700, 0.03));
  auto first = none.clone();
  first.slice(1, 0, 4).fill_(true);
  add("the first tokens", some(3, 150, 0.4), first);
  auto active_but_one = some(4, 150, 0.4), explored_but_one = some(4, 150, 0.3);
  active_but_one.slice(0, 1, 3).fill_(false);  // one without a row, one with explored rows alone
  explored_but_one[1].fill_(false);
  add("an empty sequence", active_but_one, explored_but_one);
  add("no active tokens", none, some(3, 150, 0.3));
  const auto half = some(3, 150, 0.5);
  add("all but the active ones", half, half.logical_not());
  add("many sequences", some(40, 9, 0.4), some(40, 9, 0.2));
  return cases;
}

class CudaCountedRows : public cuda_test::CudaKernels {};

TEST_F(CudaCountedRows, AreThoseOfTheReferences) {
  const Inputs inputs;
  ASSERT_TRUE(kernels::has_counted_rows(inputs.x.to(device_, at::kBFloat16), kHeadSize));
  auto uneven = at::rand({kSequences, kTokens}).lt(0.4);
  uneven[1].fill_(false);
  for (const at::Tensor& active : {at::Tensor(), uneven, at::zeros({kSequences, kTokens}, at::kBool),
                                   at::zeros({kSequences, kTokens}, at::kBool).logical_not()})
    for (const auto& [type, explore] :
         {std::pair{at::kBFloat16, 0.0}, {at::kHalf, 0.0}, {at::kBFloat16, 0.4}, {at::kHalf, 0.4}}) {
      // The reference in float32 on the very values of 16 bits.
      Inputs rounded = inputs;
      for (at::Tensor* x : {&rounded.x, &rounded.shift, &rounded.out, &rounded.weight, &rounded.qkv,
                            &rounded.up, &rounded.down})
        *x = x->to(type).to(at::kFloat);
      const Pass expected = pass(rounded, at::kCPU, at::kFloat, active, explore),
                 got = pass(rounded, device_, type, active, explore);
      const double bound = type == at::kHalf ? 4e-3 : 3e-2;
      EXPECT_LT(testing::relative_error(got.score, expected.score), 1e-4);
      EXPECT_LT(testing::relative_error(got.sum, expected.sum), 1e-5);
      ASSERT_TRUE(at::equal(got.place, expected.place));
      EXPECT_TRUE(at::equal(got.start.cpu(), expected.start));
      EXPECT_TRUE(at::equal(got.all.cpu(), expected.all));
      EXPECT_TRUE(at::equal(got.slot.cpu(), expected.slot));
      EXPECT_TRUE(at::allclose(got.counts.cpu(), expected.counts, 1e-5));
      EXPECT_LT(testing::relative_error(got.normed, expected.normed), bound);
      EXPECT_LT(testing::relative_error(got.qkv, expected.qkv), bound);
      EXPECT_LT(testing::relative_error(got.keys, expected.keys), bound);
      EXPECT_LT(testing::relative_error(got.values, expected.values), bound);
      EXPECT_LT(testing::relative_error(got.attended, expected.attended), bound);
      EXPECT_LT(testing::relative_error(got.added, expected.added), bound);
      EXPECT_LT(testing::relative_error(got.gated, expected.gated), 2 * bound);
      EXPECT_LT(testing::relative_error(got.product, expected.product), 2 * bound);
      EXPECT_TRUE(at::equal(got.dropped.ne(0), expected.dropped.ne(0)));
      EXPECT_LT(testing::relative_error(got.dropped, expected.dropped), 2 * bound);
      EXPECT_LT(testing::relative_error(got.merged, expected.merged), 2 * bound);
      EXPECT_TRUE(at::equal(got.merged_over, got.merged));
    }
}

/// Heads of pieces of 32 elements, whole and not, and as many keys as heads or fewer. What lies behind the
/// rows in use is not read.
TEST_F(CudaCountedRows, ExploredRowsSeeActiveOnesAndThemselves) {
  for (const Exploration& tokens : explorations()) {
    const CountedRows rows = rows_of(tokens.active_BT, tokens.explored_BT);
    const CountedRows rows_there = moved(rows, device_);
    const auto active = tokens.active_BT.sum().item<int64_t>(),
               explored = tokens.explored_BT.sum().item<int64_t>(), room = rows.place_N.numel();
    for (const auto type : {at::kBFloat16, at::kHalf})
      for (const int64_t head_size : {16, 32, 64, 96, 128, 256})
        for (const auto& [layout, causal] : {std::pair{HeadLayout{3, 3}, true},
                                             {HeadLayout{4, 2}, true},
                                             {HeadLayout{4, 1}, true},
                                             {HeadLayout{3, 3}, false},
                                             {HeadLayout{4, 2}, false}}) {
          const auto width = (layout.heads + 2 * layout.kv_heads) * head_size;
          const auto qkv = at::randn({room, width}).to(type);
          qkv.narrow(0, active + explored, room - active - explored).fill_(NAN);
          const auto of_explored = [&, of_heads = layout, ordered = causal](const at::Tensor& x,
                                                                            const CountedRows& in) {
            return kernels::counted_attention(x, of_heads, ordered, in).y.narrow(0, active, explored).cpu();
          };
          const auto expected = of_explored(qkv.to(at::kFloat), rows),
                     got = of_explored(qkv.to(device_), rows_there);
          EXPECT_LT(testing::relative_error(got, expected), type == at::kHalf ? 2e-3 : 1.5e-2)
              << tokens.name << ", " << head_size << " elements, " << layout.heads << " heads of "
              << layout.kv_heads << (causal ? "" : ", in no order");
          EXPECT_TRUE(at::equal(of_explored(qkv.to(device_), rows_there), got))
              << tokens.name << ": not the same bits twice";
        }
  }
}

/// As many tokens as blocks take, one fewer and one more, and as many as make the blocks larger.
TEST_F(CudaCountedRows, AreNumberedWhateverBlocksTheyLieIn) {
  struct Shape {
    int64_t sequences, tokens;
  };
  for (const Shape& shape :
       {Shape{1, 1}, Shape{5, 31}, Shape{3, 33}, Shape{1, 1024}, Shape{1, 1025}, Shape{4, 2048},
        Shape{3, 2049}, Shape{2500, 1}, Shape{7, 1463}, Shape{1, 65536}, Shape{2, 32769}}) {
    const int64_t sequences = shape.sequences, tokens = shape.tokens;
    auto score = at::randn({sequences, tokens});
    score.flatten().slice(0, 0, std::nullopt, 7).fill_(1e-4);  // just above a half
    const auto decided = at::rand({sequences, tokens}).lt(0.4);
    const auto length = at::randint(0, tokens + 1, {sequences, 1});
    const auto present = at::arange(tokens).unsqueeze(0).lt(length);
    for (const bool scores : {true, false})
      for (const bool decides : {true, false})
        for (const auto& [explore, padded] :
             {std::pair{0.0, false}, {0.3, false}, {0.0, true}, {0.3, true}}) {
          if (!scores && !decides) continue;
          const auto chosen = [&, explored = explore, pads = padded](at::Device device) {
            auto counts = at::ones({3}, at::kDouble).to(device);
            const kernels::RowChoice choice = {
                .score_BT = scores ? score.to(device) : at::Tensor(),
                .active_BT = decides ? decided.to(device) : at::Tensor(),
                .present_BT = pads ? present.to(device) : at::Tensor(),
                .key_B = explored > 0 ? (at::arange(sequences) * 77).to(device) : at::Tensor(),
                .stream = int64_t{1} << 44,
                .explore = explored};
            const auto [rows, active] = kernels::chosen_rows(choice, &counts);
            return std::tuple{rows, active.cpu(), counts.cpu()};
          };
          const auto [expected, expected_active, expected_counts] = chosen(at::kCPU);
          const auto [got, active, counts] = chosen(device_);
          EXPECT_TRUE(at::equal(active, expected_active)) << sequences << " of " << tokens;
          EXPECT_TRUE(at::equal(got.start_S1.cpu(), expected.start_S1)) << sequences << " of " << tokens;
          EXPECT_TRUE(at::equal(got.all()[-1].cpu(), expected.all()[-1])) << sequences << " of " << tokens;
          EXPECT_TRUE(at::equal(got.slot_N.cpu(), expected.slot_N)) << sequences << " of " << tokens;
          EXPECT_TRUE(at::equal(used(got.place_N, got), used(expected.place_N, expected)))
              << sequences << " of " << tokens;
          EXPECT_TRUE(at::allclose(counts, expected_counts, 1e-5)) << sequences << " of " << tokens;
        }
  }
}

/// Widths and numbers of rows that take small tiles and wide ones of each width, also of the transpose, with
/// one sum of a gradient or several.
TEST_F(CudaCountedRows, ProductsAreRightWhateverIsExpected) {
  constexpr int64_t kRoom = 3280;
  const auto type = at::TensorOptions(device_).dtype(at::kBFloat16);
  using Widths = std::pair<int64_t, int64_t>;
  for (const auto& [in, out] :
       std::initializer_list<Widths>{{256, 264}, {256, 3072}, {768, 3072}, {1024, 3072}})
    for (const int64_t count : {0, 1, 130, 881, 3280})
      for (const int64_t expected : {0, 1, 881, 3277}) {
        auto border = at::tensor({int64_t{0}, count}, at::kInt).to(device_);
        const CountedRows rows = {.place_N = at::arange(kRoom, at::kInt).to(device_),
                                  .slot_N = at::arange(kRoom, at::kInt).to(device_),
                                  .start_S1 = border,
                                  .expected = expected};
        const at::Tensor weight = at::randn({out, in}, type) / 16, x = at::randn({kRoom, in}, type),
                         grad = at::randn({kRoom, out}, type);
        x.narrow(0, count, kRoom - count).fill_(NAN);
        grad.narrow(0, count, kRoom - count).fill_(NAN);
        const auto used = [&](const at::Tensor& of) { return of.narrow(0, 0, count).to(at::kFloat); };
        auto grad_weight = at::full({out, in}, NAN, type.dtype(at::kFloat));
        kernels::counted_weight_grad(grad, x, rows, grad_weight);
        EXPECT_LT(testing::relative_error(grad_weight.cpu(), at::matmul(used(grad).t(), used(x)).cpu()), 1e-3)
            << count << " of " << expected;
        if (count == 0) continue;
        EXPECT_LT(testing::relative_error(used(kernels::counted_linear(x, weight, rows)).cpu(),
                                          at::matmul(used(x), weight.to(at::kFloat).t()).cpu()),
                  1e-2)
            << count << " of " << expected;
        EXPECT_LT(testing::relative_error(used(kernels::counted_input_grad(grad, weight, rows)).cpu(),
                                          at::matmul(used(grad), weight.to(at::kFloat)).cpu()),
                  1e-2)
            << count << " of " << expected;
      }
}

}  // namespace
}  // namespace fathom::counted_rows_test
