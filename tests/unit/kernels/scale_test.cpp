#include "kernels/scale.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "cuda_fixture.h"
#include "gradcheck.h"

namespace fathom::scale_test {
namespace {

using testing::relative_error;

void expect_scaled(const at::Tensor& x, const std::string& where) {
  const at::Tensor factor = at::full({}, 0.3, x.options().dtype(at::kFloat)), one = at::ones_like(factor);
  const at::Tensor before = x.clone(), by_reference = x.clone();
  kernels::scale_(x, one);
  EXPECT_TRUE(at::equal(x, before)) << where;
  kernels::scale_(x, factor);
  EXPECT_LT(relative_error(x, before.to(at::kDouble) * factor.to(at::kDouble)),
            testing::tolerance_of(x.scalar_type()))
      << where;
  if (x.numel() == 0) return;
  EXPECT_GT(relative_error(x, before), 0.5) << where;
  kernels::scale_ref::apply(by_reference, factor.to(at::promote_types(x.scalar_type(), at::kFloat)));
  EXPECT_LT(relative_error(x, by_reference), testing::tolerance_of(x.scalar_type())) << where;
}

/// Of vectors alone, with some elements left over, and beginning between vectors.
void expect_all_scaled(at::Device device) {
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16})
    for (const int64_t size : {0, 1, 7, 8, 64, 1000, 1003}) {
      const at::Tensor flat = (at::rand({size + 1}, device) + 0.5).to(type);
      const std::string where = c10::toString(type) + std::string(" × ") + std::to_string(size);
      expect_scaled(flat.narrow(0, 1, size), where + ", shifted");
      expect_scaled(flat.narrow(0, 1, size).clone(), where);
    }
  expect_scaled(at::rand({6, 10}, device).add(1).t(), "turned");
}

TEST(Scale, MultipliesInPlaceButByOne) {
  expect_all_scaled(at::kCPU);
  EXPECT_THROW(kernels::scale_(at::ones({4, 4}).select(1, 0), at::ones({})), Error);
  EXPECT_THROW(kernels::scale_(at::ones({4}), at::ones({2})), Error);
}

class CudaScale : public cuda_test::CudaKernels {};

TEST_F(CudaScale, MultipliesInPlaceButByOne) {
  expect_all_scaled(device_);
}

TEST_F(CudaScale, OfMoreNumbersThanAreReadAtOnce) {
  for (const auto type : {at::kFloat, at::kBFloat16})
    expect_scaled(at::rand({5000000}, device_).to(type), "");
}

TEST_F(CudaScale, ReadsItsFactorWhenItRuns) {
  const auto runtime = make_device_runtime(device_);
  const auto graph = runtime->make_graph(nullptr);
  const at::Tensor x = at::ones({1000}, device_), factor = at::ones({}, device_);
  graph->capture([&] { kernels::scale_(x, factor); });
  for (const double by : {1.0, 3.0, 0.5}) {
    x.fill_(2);
    factor.fill_(by);
    graph->replay();
    EXPECT_TRUE(x.eq(2 * by).all().item<bool>()) << by;
  }
}

}  // namespace
}  // namespace fathom::scale_test
