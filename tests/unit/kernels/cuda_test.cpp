// The same on a GPU as on a CPU. Skipped where there is none.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "kernels/keyed_dropout.h"
#include "kernels/window_attention.h"
#include "tensor/device.h"

namespace fathom {
namespace {

class CudaKernels : public testing::Test {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
    device_ = select_device("cuda:0");
  }
  at::Device device_ = at::kCPU;
};

TEST_F(CudaKernels, DropoutDropsTheSameElements) {
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16})
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{3, 5}, {2, 1, 64}, {4, 7, 24}, {70000, 8}, {1, 1}}) {
      const at::Tensor x = at::randn(shape).to(type);
      const at::Tensor key_B = at::arange(shape[0]) * 7919 + 3;
      const at::Tensor expected = kernels::keyed_dropout(x, key_B, 5, 0.3);
      const at::Tensor got = kernels::keyed_dropout(x.to(device_), key_B.to(device_), 5, 0.3).cpu();
      EXPECT_TRUE(at::equal(got.ne(0), expected.ne(0))) << c10::toString(type) << shape;
      EXPECT_TRUE(at::allclose(got.to(at::kDouble), expected.to(at::kDouble), 1e-2, 1e-6)) << shape;
    }
}

TEST_F(CudaKernels, WindowAttentionAndItsGradients) {
  const auto run = [](at::Device device, const at::Tensor& qkv, const at::Tensor& bias,
                      const at::Tensor& mask) {
    const at::Tensor x = qkv.to(device).clone().requires_grad_(),
                     b = bias.to(device).clone().requires_grad_();
    const at::Tensor y = kernels::window_attention(x, b, mask.to(device));
    y.square().sum().backward();
    return std::vector<at::Tensor>{y.detach().cpu(), x.grad().cpu(), b.grad().cpu()};
  };
  const at::Tensor qkv = at::randn({2, 4, 25, 3 * 2 * 8}, at::kDouble),
                   bias = at::randn({2, 25, 25}, at::kDouble);
  const at::Tensor mask = at::randn({4, 25, 25}, at::kDouble);
  const auto expected = run(at::kCPU, qkv, bias, mask), got = run(device_, qkv, bias, mask);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(at::allclose(got[i], expected[i], 1e-6, 1e-9)) << i;
}

}  // namespace
}  // namespace fathom
