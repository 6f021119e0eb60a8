// Products of counted rows whose tiles blocks share: what a decoder's layer multiplies, and odd sizes.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/counted_gradients.h"
#include "kernels/counted_rows.h"

namespace fathom::counted_products_test {
namespace {

using kernels::CountedRows;

struct Shape {
  int64_t out, in;
};

/// What one weight [out, in] is multiplied with, forward and back.
struct Operands {
  at::Tensor x, grad, weight;
  CountedRows rows;
  at::ScalarType grad_weight_type;

  void set_count(int64_t count) {
    rows.start_S1.select(0, -1).fill_(count);
    for (at::Tensor* of : {&x, &grad}) of->narrow(0, count, of->size(0) - count).fill_(NAN);
  }
};

struct Results {
  at::Tensor y, grad_x, grad_weight;
};

Results products(const Operands& of) {
  Results results = {
      .y = kernels::counted_linear(of.x, of.weight, of.rows),
      .grad_x = kernels::counted_input_grad(of.grad, of.weight, of.rows),
      .grad_weight = at::full(of.weight.sizes(), NAN, of.weight.options().dtype(of.grad_weight_type))};
  kernels::counted_weight_grad(of.grad, of.x, of.rows, results.grad_weight);
  return results;
}

void expect_right(const Operands& of, const Results& got, int64_t count, const char* type) {
  const auto used = [&](const at::Tensor& x) { return x.narrow(0, 0, count).to(at::kFloat); };
  const auto weight = of.weight.to(at::kFloat);
  const double bound = of.x.scalar_type() == at::kHalf ? 1e-3 : 6e-3;
  SCOPED_TRACE(::testing::Message() << type << " " << of.weight.size(0) << " of " << of.weight.size(1) << ", "
                                    << count << " rows");
  EXPECT_LT(testing::relative_error(got.grad_weight.cpu().to(at::kFloat),
                                    at::matmul(used(of.grad).t(), used(of.x)).cpu()),
            of.grad_weight_type == at::kFloat ? 1e-3 : bound);
  if (count == 0) return;
  EXPECT_LT(testing::relative_error(used(got.y).cpu(), at::matmul(used(of.x), weight.t()).cpu()), bound);
  EXPECT_LT(testing::relative_error(used(got.grad_x).cpu(), at::matmul(used(of.grad), weight).cpu()), bound);
}

void expect_same_bits(const Results& got, const Results& expected, int64_t count) {
  const auto same = [&](const at::Tensor& a, const at::Tensor& b) {
    return at::equal(a.narrow(0, 0, count), b.narrow(0, 0, count));
  };
  EXPECT_TRUE(same(got.y, expected.y)) << count << " rows";
  EXPECT_TRUE(same(got.grad_x, expected.grad_x)) << count << " rows";
  EXPECT_TRUE(at::equal(got.grad_weight, expected.grad_weight)) << count << " rows";
}

class CudaCountedProducts : public cuda_test::CudaKernels {
 protected:
  static constexpr int64_t kRoom = 3300, kExpected = 3277;

  Operands operands(const Shape& shape, at::ScalarType type, at::ScalarType grad_weight_type) const {
    const auto options = at::TensorOptions(device_).dtype(type);
    const auto indices = at::arange(kRoom, options.dtype(at::kInt));
    return {.x = at::randn({kRoom, shape.in}, options),
            .grad = at::randn({kRoom, shape.out}, options) / 8,
            .weight = at::randn({shape.out, shape.in}, options) / 16,
            .rows = {.place_N = indices,
                     .slot_N = indices,
                     .start_S1 = at::zeros({2}, options.dtype(at::kInt)),
                     .expected = kExpected},
            .grad_weight_type = grad_weight_type};
  }
};

/// Counts at the borders of tiles and beside them, and twice the same bits.
TEST_F(CudaCountedProducts, AreRightHoweverTilesAreShared) {
  for (const Shape& shape : {Shape{3072, 1024}, Shape{1024, 1024}, Shape{5632, 1024}, Shape{1024, 2816},
                             Shape{1000, 2056}, Shape{264, 4104}})
    for (const auto type : {at::kBFloat16, at::kHalf})
      for (const auto grad_weight_type : {at::kFloat, type}) {
        Operands of = operands(shape, type, grad_weight_type);
        for (const int64_t count : {kRoom, kExpected, int64_t{2048}, int64_t{1001}, int64_t{257},
                                    int64_t{256}, int64_t{255}, int64_t{64}, int64_t{1}, int64_t{0}}) {
          of.set_count(count);
          const Results got = products(of);
          expect_right(of, got, count, c10::toString(type));
          expect_same_bits(products(of), got, count);
        }
      }
}

/// Blocks leave sums for one another in memory that they get as it comes.
TEST_F(CudaCountedProducts, AreTheSameWhateverLayInTheirMemory) {
  Operands of = operands({1024, 2816}, at::kBFloat16, at::kFloat);
  of.set_count(kExpected);
  const Results expected = products(of);
  const auto bytes = at::TensorOptions(device_).dtype(at::kByte);
  for (int i = 0; i < 50; ++i) {
    { const at::Tensor freed = at::full({int64_t{3} << 23}, i * 5, bytes); }
    expect_same_bits(products(of), expected, kExpected);
  }
}

TEST_F(CudaCountedProducts, ARecordedProductFollowsTheCount) {
  const auto runtime = make_device_runtime(device_);
  for (const Shape& shape : {Shape{3072, 1024}, Shape{1024, 2816}}) {
    Operands of = operands(shape, at::kBFloat16, at::kFloat);
    of.set_count(kRoom);
    products(of);
    Results recorded;
    const auto graph = runtime->make_graph();
    ASSERT_TRUE(graph);
    graph->capture([&] { recorded = products(of); });
    for (const int64_t count : {kRoom, kExpected, int64_t{1500}, int64_t{130}, int64_t{0}}) {
      of.set_count(count);
      for (int again = 0; again < 3; ++again) graph->replay();
      expect_same_bits(recorded, products(of), count);
      expect_right(of, recorded, count, "recorded");
    }
  }
}

}  // namespace
}  // namespace fathom::counted_products_test
