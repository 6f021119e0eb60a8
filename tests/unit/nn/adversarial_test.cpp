// Gradient reversal and adapters.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "nn/adapter.h"
#include "nn/grad_reversal.h"

namespace fathom::adversarial_test {
namespace {

at::Tensor scalar(double value) {
  return at::full({}, value, at::kDouble);
}

TEST(GradientReversal, LeavesValuesAndTurnsGradientsRound) {
  torch::manual_seed(2);
  const at::Tensor x = torch::randn({3, 4}, at::kDouble);
  const auto function = [](const at::Tensor& z) { return (z.sin() * z.exp()).sum(); };
  EXPECT_TRUE(at::equal(reverse_gradient(x, scalar(0.3)), x));
  // Against finite differences of the function without reversal.
  const at::Tensor leaf = x.clone().requires_grad_();
  function(reverse_gradient(leaf, scalar(0.3))).backward();
  constexpr double kStep = 1e-6;
  for (int64_t i = 0; i < x.numel(); ++i) {
    at::Tensor above = x.clone(), below = x.clone();
    above.view(-1)[i] += kStep;
    below.view(-1)[i] -= kStep;
    const double slope = (function(above) - function(below)).item<double>() / (2 * kStep);
    EXPECT_NEAR(leaf.grad().view(-1)[i].item<double>(), -0.3 * slope, 1e-7);
  }
}

TEST(GradientReversal, HasTheDerivativeOfAFactorWhenReversedTwice) {
  testing::expect_gradients(
      [](const std::vector<at::Tensor>& inputs) {
        return reverse_gradient(reverse_gradient(inputs[0].sin(), scalar(1)), scalar(1));
      },
      {torch::randn({5}, at::kDouble)});
}

TEST(GradientReversal, StrengthGrowsFromNothingToAlmostOne) {
  const auto strength = [](double progress) { return reversal_strength(scalar(progress)).item<double>(); };
  EXPECT_EQ(strength(0), 0);
  EXPECT_NEAR(strength(0.1), 2 / (1 + std::exp(-1.0)) - 1, 1e-12);
  EXPECT_NEAR(strength(1), 0.9999092, 1e-6);
}

using cuda_test::CudaKernels;

TEST_F(CudaKernels, ARecordedReversalReadsItsStrengthAtTheReplay) {
  const auto runtime = make_device_runtime(device_);
  const auto graph = runtime->make_graph(nullptr);
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device_);
  const at::Tensor x = at::ones({3}, options).requires_grad_();
  const at::Tensor strength = at::zeros({}, options.dtype(at::kDouble)), found = at::zeros({3}, options);
  const auto work = [&] {
    found.copy_(torch::autograd::grad({reverse_gradient(x, strength).sum()}, {x})[0]);
  };
  work();  // what is made at first use
  graph->capture(work);
  for (const double now : {0.25, 0.5}) {
    strength.fill_(now);
    graph->replay();
    EXPECT_TRUE(at::equal(found.cpu(), at::full({3}, -now, at::kFloat))) << now;
  }
}

TEST(Adapter, BeginsAsTheIdentityAndLearns) {
  Adapter adapter(AdapterOptions{.dim = 6, .bottleneck = 3});
  init_parameters(*adapter, 1);
  adapter->to(at::kDouble);
  const at::Tensor x = torch::randn({2, 5, 6}, at::kDouble);
  EXPECT_TRUE(at::equal(adapter(x), x));
  adapter(x).square().sum().backward();
  EXPECT_GT(adapter->named_parameters()["up.weight"].grad().abs().max().item<double>(), 1e-3);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : adapter->parameters()) parameter.normal_();
  EXPECT_GT((adapter(x) - x).abs().max().item<double>(), 0.1);
}

TEST(Adapter, HasTheRightDerivatives) {
  Adapter adapter(AdapterOptions{.dim = 4, .bottleneck = 2});
  init_parameters(*adapter, 1);
  adapter->to(at::kDouble);
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : adapter->parameters()) parameter.normal_();
  }
  testing::expect_gradients([&](const std::vector<at::Tensor>& inputs) { return adapter(inputs[0]); },
                            {torch::randn({3, 4}, at::kDouble)});
}

}  // namespace
}  // namespace fathom::adversarial_test
