// Norms of counted rows and what is merged with them, of widths and counts that fill warps and of others.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/counted_gradients.h"
#include "kernels/counted_rows.h"

namespace fathom::counted_norms_test {
namespace {

using kernels::CountedRows;

/// Rows of active tokens [B, T], and behind them of others that are explored.
CountedRows rows_of(const at::Tensor& active_BT, const at::Tensor& explored_BT) {
  const auto places = [](const at::Tensor& mask) { return mask.flatten().nonzero().squeeze(1); };
  const auto used = at::cat({places(active_BT), places(explored_BT & active_BT.logical_not())});
  const int64_t room = active_BT.numel(), count = used.numel();
  CountedRows rows = {.place_N = at::full({room}, -1, at::kInt),
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

int64_t last(const at::Tensor& start_S1) {
  return start_S1[-1].item<int64_t>();
}

/// Which tokens have rows: none, one, some, with a sequence without any, and all.
struct Choice {
  const char* name;
  CountedRows rows;
};
std::vector<Choice> choices(int64_t sequences, int64_t tokens) {
  const auto none = at::zeros({sequences, tokens}, at::kBool);
  auto one = none.clone(), uneven = at::rand({sequences, tokens}).lt(0.4);
  one[sequences - 1][tokens / 2] = true;
  uneven[0].fill_(false);
  const auto explored = at::rand({sequences, tokens}).lt(0.1);
  return {{"none", rows_of(none, none)},
          {"one", rows_of(one, none)},
          {"explored alone", rows_of(none, explored)},
          {"some", rows_of(at::rand({sequences, tokens}).lt(0.4), explored)},
          {"an empty sequence", rows_of(uneven, explored)},
          {"all", rows_of(none.logical_not(), none)}};
}

/// Everything that reads or writes rows of states; what rows hold that are not in use is NaN.
struct States {
  at::Tensor x_BTD, y, grad, added, weight, grad_BTD, score_BT;
};

States states(int64_t sequences, int64_t tokens, int64_t dim, at::ScalarType type, const CountedRows& rows) {
  const int64_t room = sequences * tokens, active = last(rows.start_S1), count = last(rows.all());
  const auto of_rows = [&](int64_t used) {
    auto x = at::randn({room, dim}).to(type);
    x.narrow(0, used, room - used).fill_(NAN);
    return x;
  };
  return {.x_BTD = at::randn({sequences, tokens, dim}).to(type),
          .y = of_rows(count),
          .grad = of_rows(active),
          .added = of_rows(active),
          .weight = (at::rand({dim}) + 0.5).to(type),
          .grad_BTD = at::randn({sequences, tokens, dim}).to(type),
          .score_BT = at::randn({sequences, tokens})};
}

States moved(const States& s, const at::TensorOptions& place) {
  return {s.x_BTD.to(place),
          s.y.to(place),
          s.grad.to(place),
          s.added.to(place),
          s.weight.to(place),
          s.grad_BTD.to(place, /*non_blocking=*/false, /*copy=*/true),
          s.score_BT.to(place.dtype(at::kFloat))};
}

/// What each operation makes of the rows in use, or of all places.
std::vector<std::pair<const char*, at::Tensor>> found(States s, const CountedRows& rows) {
  const int64_t active = last(rows.start_S1), count = last(rows.all());
  const auto first = [](const at::Tensor& x, int64_t used) { return x.narrow(0, 0, used); };
  const auto normed = kernels::gathered_rms_norm(s.x_BTD, s.weight, 1e-5, rows);
  const auto [h, h_normed] = kernels::added_rms_norm(s.x_BTD, s.y, s.weight, 1e-5, rows);
  const auto merged = kernels::merged_rows(s.x_BTD, h, s.y, rows);
  auto merged_over = s.x_BTD.clone();
  kernels::merge_rows(merged_over, h, s.y, rows);
  const auto [grad_rows, grad_score] =
      kernels::merged_rows_backward(s.grad_BTD, s.y, s.y, {.score_BT = s.score_BT, .explore = 0.1}, rows);
  const auto [grad_h, grad_h_weight] =
      kernels::counted_rms_norm_backward(s.grad, h, s.weight, 1e-5, s.added, rows);
  const auto grad_weight =
      kernels::gathered_rms_norm_backward(s.grad, s.x_BTD, s.weight, 1e-5, s.added, s.grad_BTD, rows);
  return {{"normed", first(normed, count)},
          {"sums", first(h, count)},
          {"normed sums", first(h_normed, count)},
          {"merged", merged},
          {"merged over", merged_over},
          {"gradients of rows", first(grad_rows, active)},
          {"gradient of scores", grad_score},
          {"gradient of sums", first(grad_h, active)},
          {"gradient of a weight", grad_h_weight},
          {"gradient of states", s.grad_BTD},
          {"gradient of the gathering norm's weight", grad_weight}};
}

TEST(CountedNorms, SkippedTokensKeepTheirGradient) {
  const CountedRows rows = choices(3, 20)[3].rows;
  const States s = states(3, 20, 16, at::kFloat, rows);
  auto grad_BTD = s.grad_BTD.clone();
  kernels::gathered_rms_norm_backward(s.grad, s.x_BTD, s.weight, 1e-5, s.added, grad_BTD, rows);
  const auto active_BT = rows.slot_N.ge(0).logical_and(rows.slot_N.lt(last(rows.start_S1))).view({3, 20});
  EXPECT_TRUE(at::equal(grad_BTD.ne(s.grad_BTD).any(2), active_BT));
}

class CudaCountedNorms : public cuda_test::CudaKernels {};

/// A row of less than a vector a lane, of warps that share one, whole and not; and fewer rows than blocks,
/// and more than these take at once.
TEST_F(CudaCountedNorms, AreThoseOfTheReferences) {
  struct Shape {
    int64_t sequences, tokens, dim;
  };
  for (const Shape& shape :
       {Shape{3, 50, 8}, Shape{3, 50, 72}, Shape{2, 90, 768}, Shape{3, 50, 1000}, Shape{2, 3000, 1024},
        Shape{3, 50, 1032}, Shape{2, 700, 2048}, Shape{3, 50, 2056}, Shape{2, 600, 4096}, Shape{3, 40, 8192}})
    for (const auto& [name, rows] : choices(shape.sequences, shape.tokens))
      for (const auto type : {at::kBFloat16, at::kHalf}) {
        const States s = states(shape.sequences, shape.tokens, shape.dim, type, rows);
        const CountedRows rows_there = moved(rows, device_);
        const auto there = at::TensorOptions(device_).dtype(type);
        const auto expected = found(moved(s, at::TensorOptions(at::kFloat)), rows),
                   got = found(moved(s, there), rows_there), again = found(moved(s, there), rows_there);
        for (size_t i = 0; i < got.size(); ++i) {
          const auto where = [&] {
            return std::string(got[i].first) + " of " + name + ", " + std::to_string(shape.dim);
          };
          if (expected[i].second.numel() > 0) {
            EXPECT_LT(testing::relative_error(got[i].second.cpu(), expected[i].second),
                      type == at::kHalf ? 4e-3 : 3e-2)
                << where();
          }
          EXPECT_TRUE(at::equal(got[i].second, again[i].second)) << where() << ": not the same bits twice";
        }
      }
}

}  // namespace
}  // namespace fathom::counted_norms_test
