#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "dist/bodies.h"
#include "dist/ranks.h"
#include "distributed/autograd_collectives.h"

namespace fathom::test {
namespace {

void require_equal(const at::Tensor& actual, const at::Tensor& expected, const char* what) {
  FATHOM_CHECK(actual.sizes() == expected.sizes() && at::equal(actual, expected), "{} gives something else",
               what);
}

/// Values that differ by rank and are exact in every type.
at::Tensor values_of(int64_t rank, at::ScalarType type) {
  return (torch::arange(6).view({2, 3}) + 10 * rank).to(rank_device(), type);
}

at::Tensor over_ranks(const Collective& collective, at::ScalarType type,
                      const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& combine) {
  at::Tensor result = values_of(0, type);
  for (int64_t rank = 1; rank < collective.size(); ++rank) result = combine(result, values_of(rank, type));
  return result;
}

void check_reductions(Collective& collective, at::ScalarType type) {
  const auto reduced = [&](ReduceOp op) {
    at::Tensor x = values_of(collective.rank(), type);
    collective.all_reduce(x, op);
    return x;
  };
  const auto add = [](const at::Tensor& a, const at::Tensor& b) { return a + b; };
  const at::Tensor sum = over_ranks(collective, type, add);
  require_equal(reduced(ReduceOp::kSum), sum, "sum");
  require_equal(reduced(ReduceOp::kMax), values_of(collective.size() - 1, type), "max");
  require_equal(reduced(ReduceOp::kMin), values_of(0, type), "min");
  if (at::isFloatingType(type)) require_equal(reduced(ReduceOp::kMean), sum / collective.size(), "mean");
}

}  // namespace

void check_operations(Collective& collective) {
  const int64_t rank = collective.rank(), size = collective.size();
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt}) {
    check_reductions(collective, type);
  }
  std::vector<at::Tensor> all;
  for (int64_t i = 0; i < size; ++i) all.push_back(values_of(i, at::kFloat));
  const at::Tensor own = values_of(rank, at::kFloat);
  require_equal(collective.all_gather(own), at::cat(all), "all_gather");
  require_equal(collective.all_gather(own.t()),
                at::cat(all, 1).view({2, size, 3}).permute({1, 2, 0}).reshape({-1, 2}),
                "all_gather of a transposed tensor");
  require_equal(collective.all_gather(torch::tensor(rank, rank_device())), torch::arange(size, rank_device()),
                "all_gather of numbers");

  const at::Tensor whole = torch::arange(4 * size).view({2 * size, 2}).to(rank_device(), at::kDouble);
  const double weight = size * (size + 1) / 2.0;
  require_equal(collective.reduce_scatter(whole * (rank + 1)), whole.narrow(0, 2 * rank, 2) * weight,
                "reduce_scatter");

  at::Tensor sent = values_of(rank, at::kLong);
  collective.broadcast(sent, size - 1);
  require_equal(sent, values_of(size - 1, at::kLong), "broadcast");

  const at::Tensor one = torch::ones({1000}, rank_device());
  at::Tensor first = one.clone(), second = one * 2;
  auto pending_first = collective.all_reduce_async(first);
  auto pending_second = collective.all_reduce_async(second, ReduceOp::kMean);
  pending_second->wait();
  pending_first->wait();
  require_equal(first, one * size, "asynchronous sum");
  require_equal(second, one * 2, "asynchronous mean");
  collective.barrier();
  collective.check();
}

void check_gather_gradient(Collective& collective) {
  const int64_t rank = collective.rank(), size = collective.size(), rows = 3;
  torch::manual_seed(7);
  const at::Tensor all = torch::randn({size * rows, 4}, at::kDouble).to(rank_device());
  const at::Tensor weights = torch::randn({size, size * rows, 4}, at::kDouble).to(rank_device());
  const auto loss_of = [&](const at::Tensor& gathered, int64_t r) {
    return (gathered.tanh() * weights[r]).sum();
  };

  at::Tensor own = all.narrow(0, rank * rows, rows).clone().requires_grad_();
  loss_of(all_gather_with_gradient(collective, own), rank).backward();

  at::Tensor truth = all.clone().requires_grad_();
  for (int64_t r = 0; r < size; ++r) loss_of(truth, r).backward();
  const double error = (own.grad() - truth.grad().narrow(0, rank * rows, rows)).abs().max().item<double>();
  FATHOM_CHECK(error < 1e-12, "the gathered gradient is off by {}", error);
}

void check_contrastive_gradient(Collective& collective) {
  const int64_t rank = collective.rank(), size = collective.size(), rows = 3, total = size * rows;
  torch::manual_seed(8);
  const at::Tensor all_images = torch::randn({total, 5}, at::kDouble).to(rank_device()),
                   all_texts = torch::randn({total, 5}, at::kDouble).to(rank_device());
  namespace F = torch::nn::functional;
  // InfoNCE both ways over the global batch; each rank's share is that of its own rows.
  const auto share = [&](const at::Tensor& images, const at::Tensor& texts, const at::Tensor& own_images,
                         const at::Tensor& own_texts, const at::Tensor& labels) {
    const auto options = F::CrossEntropyFuncOptions().reduction(torch::kSum);
    return (F::cross_entropy(own_images.mm(texts.t()), labels, options) +
            F::cross_entropy(own_texts.mm(images.t()), labels, options)) /
           (2.0 * total);
  };
  at::Tensor images = all_images.narrow(0, rank * rows, rows).clone().requires_grad_();
  at::Tensor texts = all_texts.narrow(0, rank * rows, rows).clone().requires_grad_();
  at::Tensor loss =
      share(all_gather_with_gradient(collective, images), all_gather_with_gradient(collective, texts), images,
            texts, torch::arange(rank * rows, (rank + 1) * rows, rank_device()));
  loss.backward();
  at::Tensor global_loss = loss.detach().clone();
  collective.all_reduce(global_loss);

  at::Tensor true_images = all_images.clone().requires_grad_(),
             true_texts = all_texts.clone().requires_grad_();
  at::Tensor true_loss =
      share(true_images, true_texts, true_images, true_texts, torch::arange(total, rank_device()));
  true_loss.backward();
  const auto error_of = [](const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>();
  };
  FATHOM_CHECK(error_of(global_loss, true_loss.detach()) < 1e-12, "the loss differs from one process's");
  FATHOM_CHECK(error_of(images.grad(), true_images.grad().narrow(0, rank * rows, rows)) < 1e-12,
               "image gradients differ");
  FATHOM_CHECK(error_of(texts.grad(), true_texts.grad().narrow(0, rank * rows, rows)) < 1e-12,
               "text gradients differ");
}

void check_argument_errors(Collective& collective) {
  const auto throws = [](const std::function<void()>& call) {
    try {
      call();
    } catch (const Error&) {
      return true;
    }
    return false;
  };
  at::Tensor transposed = torch::ones({2, 3}).t();
  FATHOM_CHECK(throws([&] { collective.all_reduce(transposed); }), "a transposed tensor was reduced");
  FATHOM_CHECK(throws([&] { collective.broadcast(transposed); }), "a transposed tensor was broadcast");
  FATHOM_CHECK(throws([&] { collective.reduce_scatter(torch::ones({2 * collective.size() + 1})); }),
               "uneven parts");
  at::Tensor x = torch::ones({2});
  FATHOM_CHECK(throws([&] { collective.broadcast(x, collective.size()); }), "a root that does not exist");
  collective.all_reduce(x);  // the group still works
  FATHOM_CHECK(x[0].item<int64_t>() == collective.size(), "the group no longer works");
}

TEST(Collective, OperationsOfTwoRanks) {
  expect_success(run_ranks(2, "check_operations"));
}
TEST(Collective, OperationsOfThreeRanks) {
  expect_success(run_ranks(3, "check_operations"));
}
TEST(Collective, GatherSumsGradientsAtTheirOwner) {
  expect_success(run_ranks(2, "check_gather_gradient"));
  expect_success(run_ranks(3, "check_gather_gradient"));
}
TEST(Collective, GlobalContrastiveLossEqualsOneProcess) {
  expect_success(run_ranks(3, "check_contrastive_gradient"));
}
TEST(Collective, RefusesWrongArguments) {
  expect_success(run_ranks(2, "check_argument_errors"));
}

}  // namespace fathom::test
