// Gradients by finite differences, in double: LibTorch's C++ side has no gradcheck.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <vector>

namespace fathom::testing {

using TensorFunction = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

/// Expects that autograd's gradients of a random projection of `function()` equal central differences in
/// every element of every leaf, which `function` reads: parameters of a module, inputs that require
/// gradients. Leaves are float64, contiguous and few; they are left as they were.
inline void expect_leaf_gradients(const std::function<at::Tensor()>& function,
                                  const std::vector<at::Tensor>& leaves, double tolerance = 1e-6) {
  constexpr double kStep = 1e-5;
  const auto output = function();
  const auto projection = at::randn_like(output);
  const auto gradients = torch::autograd::grad({output}, leaves, {projection});

  at::NoGradGuard no_grad;
  const auto value = [&] { return (function() * projection).sum().item<double>(); };
  for (size_t k = 0; k < leaves.size(); ++k) {
    const auto flat = leaves[k].detach().view(-1);
    const auto analytic = gradients[k].contiguous().view(-1);
    EXPECT_GT(analytic.abs().max().item<double>(), 0.0) << "input " << k << " has no gradient";
    for (int64_t i = 0; i < flat.numel(); ++i) {
      const double middle = flat[i].item<double>();
      flat[i].fill_(middle + kStep);
      const double above = value();
      flat[i].fill_(middle - kStep);
      const double below = value();
      flat[i].fill_(middle);
      const double numeric = (above - below) / (2 * kStep), exact = analytic[i].item<double>();
      ASSERT_NEAR(exact, numeric, tolerance * (1 + std::abs(numeric))) << "input " << k << ", element " << i;
    }
  }
}

/// The same of `function(inputs)` and its inputs, of which copies are taken.
inline void expect_gradients(const TensorFunction& function, std::vector<at::Tensor> inputs,
                             double tolerance = 1e-6) {
  for (auto& input : inputs) input = input.detach().clone().requires_grad_(true);
  expect_leaf_gradients([&] { return function(inputs); }, inputs, tolerance);
}

/// `inputs`, made to require gradients, and behind them the parameters of `module`.
template <typename Module>
std::vector<at::Tensor> with_parameters(std::vector<at::Tensor> inputs, const Module& module) {
  for (auto& input : inputs) input.requires_grad_(true);
  for (const auto& parameter : module->parameters()) inputs.push_back(parameter);
  return inputs;
}

/// Largest |a − b| over largest |b|, in float64.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const auto x = a.detach().cpu().to(at::kDouble), y = b.detach().cpu().to(at::kDouble);
  if (x.sizes() != y.sizes()) return 1e9;
  if (x.numel() == 0) return 0;
  return (x - y).abs().max().item<double>() / (y.abs().max().item<double>() + 1e-30);
}

/// What rounding of one operation leaves in this type.
inline double tolerance_of(at::ScalarType type) {
  return type == at::kDouble ? 1e-12 : type == at::kFloat ? 2e-6 : 8e-3;
}

}  // namespace fathom::testing
