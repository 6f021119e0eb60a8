// Rows of a table and sums of rows into it: against sums in float64, on a CPU and on a GPU.
#include "kernels/embedding.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "cuda_fixture.h"
#include "gradcheck.h"

namespace fathom::embedding_test {
namespace {

using kernels::add_embedding_rows;
using testing::relative_error;

/// Which rows of a table are meant, and how wide they are.
struct RowCase {
  std::string name;
  int64_t vocabulary, dim;
  at::Tensor ids_N;
};

at::Tensor random_ids(int64_t count, int64_t vocabulary) {
  return at::randint(vocabulary, {count}, at::kLong);
}

/// One in ten is `frequent`.
at::Tensor skewed_ids(int64_t count, int64_t vocabulary, int64_t frequent) {
  return at::where(at::rand({count}).lt(0.1), at::full({count}, frequent, at::kLong),
                   random_ids(count, vocabulary));
}

/// Each id once more often than the one before it, from 1 on, in any order.
at::Tensor ids_of_all_lengths(int64_t most) {
  std::vector<at::Tensor> runs;
  for (int64_t length = 1; length <= most; ++length)
    runs.push_back(at::full({length}, length - 1, at::kLong));
  const at::Tensor all = at::cat(runs);
  return all.index_select(0, at::randperm(all.numel(), at::kLong));
}

std::vector<RowCase> row_cases() {
  std::vector<RowCase> cases = {{"one id", 9, 24, at::tensor({4}, at::kLong)},
                                {"none", 9, 24, at::empty({0}, at::kLong)},
                                {"a table of one row", 1, 8, at::zeros({5}, at::kLong)},
                                {"all different", 300, 16, at::randperm(300, at::kLong)},
                                {"both ends", 32768, 8, at::tensor({32767, 0, 32767, 0, 32766}, at::kLong)},
                                {"lengths", 70, 40, ids_of_all_lengths(70)},
                                {"frequent", 1000, 136, skewed_ids(700, 1000, 17)},
                                {"frequent, the last", 500, 72, skewed_ids(3000, 500, 499)}};
  for (const int64_t dim : {1, 3, 7, 8, 12, 100, 520})
    cases.push_back({"width " + std::to_string(dim), 50, dim, random_ids(333, 50)});
  for (const int64_t count : {15, 16, 17, 31, 32, 33, 48, 160, 2100})
    cases.push_back({"all equal, " + std::to_string(count), 20, 72, at::full({count}, 19, at::kLong)});
  return cases;
}

at::Tensor exact_sum(const at::Tensor& before_VD, const at::Tensor& ids_N, const at::Tensor& rows_ND) {
  return before_VD.to(at::kDouble).index_add(0, ids_N, rows_ND.to(at::kDouble));
}

void expect_exact(const RowCase& of, at::ScalarType rows_type, at::ScalarType sum_type, at::Device device) {
  const std::string where = of.name + ", " + c10::toString(rows_type) + " into " + c10::toString(sum_type);
  const at::Tensor rows_ND = at::randn({of.ids_N.size(0), of.dim}).to(rows_type),
                   before_VD = at::randn({of.vocabulary, of.dim}).to(sum_type);
  const at::Tensor ids = of.ids_N.to(device), rows = rows_ND.to(device);
  const at::Tensor sum = before_VD.to(device).clone(), again = sum.clone(), reference = sum.clone();
  add_embedding_rows(sum, ids, rows);
  add_embedding_rows(again, ids, rows);
  EXPECT_TRUE(at::equal(sum, again)) << "the same in every run, " << where;
  const double tolerance = sum_type == at::kDouble ? 1e-12 : sum_type == at::kFloat ? 5e-6 : 1e-2;
  EXPECT_LT(relative_error(sum, exact_sum(before_VD, of.ids_N, rows_ND)), tolerance) << where;
  if (of.ids_N.numel() == 0 || sum_type == at::kBFloat16) return;
  kernels::embedding_ref::add(reference, ids, rows);
  EXPECT_LT(relative_error(sum, reference), tolerance) << where;
}

void expect_all_exact(at::Device device) {
  at::manual_seed(4);
  for (const RowCase& of : row_cases()) {
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) expect_exact(of, type, at::kFloat, device);
    expect_exact(of, at::kBFloat16, at::kBFloat16, device);
    expect_exact(of, at::kDouble, at::kDouble, device);
    expect_exact(of, at::kDouble, at::kFloat, device);
  }
}

TEST(Embedding, AddsRowsToWhatIsThere) {
  expect_all_exact(at::kCPU);
}

/// Rows and sums that begin where no vector may, and rows that do not lie behind each other.
void expect_any_place(at::Device device) {
  const at::Tensor ids_N = random_ids(100, 30), rows_ND = at::randn({100, 16}).to(at::kBFloat16);
  const auto shifted = [&](const at::Tensor& x) {
    const at::Tensor flat = at::zeros({x.numel() + 1}, x.options().device(device));
    return flat.narrow(0, 1, x.numel()).view(x.sizes()).copy_(x);
  };
  const at::Tensor before_VD = at::randn({30, 16}), expected = exact_sum(before_VD, ids_N, rows_ND);
  for (const at::Tensor& rows : {shifted(rows_ND), rows_ND.t().contiguous().to(device).t()}) {
    const at::Tensor sum = shifted(before_VD), aligned = before_VD.to(device).clone();
    for (const at::Tensor& into : {sum, aligned}) {
      add_embedding_rows(into, ids_N.to(device), rows);
      EXPECT_LT(relative_error(into, expected), 1e-6);
    }
  }
}

TEST(Embedding, AddsRowsThatLieAnywhere) {
  expect_any_place(at::kCPU);
}

TEST(Embedding, SumsDoNotDependOnTheNumberOfThreads) {
  const at::Tensor ids_N = skewed_ids(700, 40, 3), rows_ND = at::randn({700, 200});
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> sums;
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    sums.push_back(at::zeros({40, 200}));
    add_embedding_rows(sums.back(), ids_N, rows_ND);
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(sums[0], sums[1]));
}

void expect_rows(at::Device device) {
  for (const int64_t dim : {1, 7, 8, 20, 64})
    for (const auto from : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf})
      for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
        const at::Tensor weight = at::randn({11, dim}).to(from),
                         ids = at::tensor({10, 0, 3, 3, 7, 10}, at::kLong).view({2, 3});
        const at::Tensor got = kernels::embedding(weight.to(device), ids.to(device), type);
        EXPECT_EQ(got.scalar_type(), type);
        EXPECT_TRUE(at::equal(got.cpu(), at::embedding(weight, ids).to(type)))
            << c10::toString(from) << " as " << c10::toString(type) << ", width " << dim;
      }
  const at::Tensor none =
      kernels::embedding(at::randn({3, 8}, device), at::empty({2, 0}, device).to(at::kLong), at::kBFloat16);
  EXPECT_EQ(none.sizes(), at::IntArrayRef({2, 0, 8}));
}

TEST(Embedding, RowsAreThoseOfTheTable) {
  expect_rows(at::kCPU);
}

TEST(Embedding, HasTheRightGradient) {
  const at::Tensor ids = at::tensor({5, 0, 2, 2, 5, 5, 1, 2}, at::kLong).view({2, 4});
  testing::expect_gradients([&](const auto& in) { return kernels::embedding(in[0], ids, at::kDouble); },
                            {at::randn({6, 3}, at::kDouble)});
}

/// A table's gradient of one lookup, of the gradient `grad` by its rows.
at::Tensor gradient_of(const at::Tensor& weight, const at::Tensor& ids, const at::Tensor& grad) {
  const at::Tensor leaf = weight.detach().clone().requires_grad_();
  kernels::embedding(leaf, ids, grad.scalar_type()).backward(grad);
  return leaf.grad();
}

void expect_gradient_types(at::Device device) {
  const at::Tensor ids_N = random_ids(400, 9).to(device);
  for (const auto from : {at::kFloat, at::kBFloat16})
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor weight = at::randn({9, 16}, device).to(from),
                       grad = at::randn({400, 16}, device).to(type);
      const at::Tensor found = gradient_of(weight, ids_N, grad);
      EXPECT_EQ(found.scalar_type(), from);
      EXPECT_LT(relative_error(found, exact_sum(at::zeros({9, 16}), ids_N.cpu(), grad.cpu())),
                from == at::kFloat ? 2e-6 : 8e-3);
    }
}

TEST(Embedding, GradientsAreOfTheTablesTypeAndSummedInFloat32) {
  expect_gradient_types(at::kCPU);
}

TEST(Embedding, AFrozenTableHasNoGradient) {
  EXPECT_FALSE(kernels::embedding(at::randn({3, 4}), at::zeros({2}, at::kLong), at::kFloat).requires_grad());
}

TEST(Embedding, RefusesWhatDoesNotFit) {
  const at::Tensor weight = at::randn({3, 4});
  EXPECT_THROW(kernels::embedding(weight, at::zeros({2}, at::kInt), at::kFloat), Error);
  EXPECT_ANY_THROW(kernels::embedding(weight, at::full({2}, 3, at::kLong), at::kFloat));
  for (const int64_t id : {-1, 3})
    EXPECT_THROW(add_embedding_rows(weight.clone(), at::full({2}, id, at::kLong), at::randn({2, 4})), Error);
  EXPECT_THROW(add_embedding_rows(weight.clone(), at::zeros({2}, at::kLong), at::randn({3, 4})), Error);
  EXPECT_THROW(add_embedding_rows(weight.clone(), at::zeros({2}, at::kLong), at::randn({2, 5})), Error);
}

class CudaEmbedding : public cuda_test::CudaKernels {};

TEST_F(CudaEmbedding, AddsRowsToWhatIsThere) {
  expect_all_exact(device_);
}

TEST_F(CudaEmbedding, AddsRowsThatLieAnywhere) {
  expect_any_place(device_);
}

TEST_F(CudaEmbedding, AddsManyRows) {
  for (const auto& [count, vocabulary] :
       {std::pair<int64_t, int64_t>{9000, 32000}, {70000, 50000}, {200000, 3}})
    expect_exact({std::to_string(count), vocabulary, 264, skewed_ids(count, vocabulary, vocabulary - 1)},
                 at::kBFloat16, at::kFloat, device_);
}

TEST_F(CudaEmbedding, RowsAreThoseOfTheTable) {
  expect_rows(device_);
}

TEST_F(CudaEmbedding, GradientsAreOfTheTablesTypeAndSummedInFloat32) {
  expect_gradient_types(device_);
}

TEST_F(CudaEmbedding, RowsBeyondTheTableAreNoNumbersAndAddNothing) {
  const at::Tensor ids = at::tensor({2, 4, -1, 0}, at::kLong).to(device_),
                   weight = at::randn({4, 24}, device_);
  const at::Tensor rows = kernels::embedding(weight, ids, at::kBFloat16);
  EXPECT_TRUE(rows.narrow(0, 1, 2).isnan().all().item<bool>());
  EXPECT_TRUE(at::equal(rows[0], weight[2].to(at::kBFloat16)));
  const at::Tensor sum = at::zeros_like(weight);
  add_embedding_rows(sum, ids, at::ones({4, 24}, device_));
  EXPECT_TRUE(at::equal(sum.sum(1).cpu(), at::tensor({24.0f, 0.0f, 24.0f, 0.0f})));
}

}  // namespace
}  // namespace fathom::embedding_test
