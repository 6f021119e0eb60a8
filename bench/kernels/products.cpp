#include "kernels/gelu_mlp.h"
#include "kernels/kernel.h"
#include "kernels/linear.h"
#include "kernels/linear_gelu.h"
#include "kernels/linear_swiglu.h"

namespace fathom::bench {
namespace {

/// Numbers and operations of a product of all rows with a weight of `width` rows.
Cost product_cost(const Operands& make, double width) {
  const double n = make.numbers(), dim = static_cast<double>(make.dim);
  return {n + n / dim * width + dim * width, 2 * n * width};
}

}  // namespace

Kernel linear_kernel(const Operands& make) {
  const int64_t rows = make.batch() * make.tokens(), dim = make.dim;
  const at::Tensor x = make.random({rows, dim}), weight = make.random({4 * dim, dim});
  const Cost cost = product_cost(make, 4 * static_cast<double>(dim));
  return {"linear",
          {x, weight},
          [=] { return std::vector{kernels::linear(x, weight)}; },
          cost,
          {2 * cost.numbers, 2 * cost.flops}};
}

Kernel linear_gelu_kernel(const Operands& make) {
  const int64_t rows = make.batch() * make.tokens(), dim = make.dim;
  const at::Tensor x = make.random({rows, dim}), weight = make.random({4 * dim, dim}),
                   bias = make.random({4 * dim});
  const Cost cost = product_cost(make, 4 * static_cast<double>(dim));
  return {"linear_gelu",
          {x, weight, bias},
          [=] { return std::vector{kernels::linear_gelu(x, weight, bias)}; },
          cost,
          {2 * cost.numbers + 16 * make.numbers(), 2 * cost.flops}};
}

Kernel gelu_mlp_kernel(const Operands& make) {
  const int64_t rows = make.batch() * make.tokens(), dim = make.dim;
  const at::Tensor x = make.random({rows, dim}), up = make.random({4 * dim, dim}),
                   down = make.random({dim, 4 * dim});
  const kernels::GeluMlpWeights weights = {up, make.random({4 * dim}), down, make.random({dim})};
  const Cost cost = product_cost(make, 4 * static_cast<double>(dim));
  return {"gelu_mlp",
          {x, up, weights.up_bias, down, weights.down_bias},
          [=] { return std::vector{kernels::gelu_mlp(x, weights)}; },
          {2 * cost.numbers, 2 * cost.flops},
          {4 * cost.numbers + 8 * make.numbers(), 4 * cost.flops}};
}

Kernel linear_swiglu_kernel(const Operands& make) {
  const int64_t rows = make.batch() * make.tokens(), dim = make.dim, inner = dim * 11 / 32 * 8;
  const at::Tensor x = make.random({rows, dim}), weight = make.random({2 * inner, dim});
  const Cost cost = product_cost(make, 2 * static_cast<double>(inner));
  const double written = static_cast<double>(rows * inner);
  return {"linear_swiglu",
          {x, weight},
          [=] { return std::vector{kernels::linear_swiglu(x, weight)}; },
          {cost.numbers - written, cost.flops},
          {2 * cost.numbers + 4 * written, 2 * cost.flops}};
}

Kernel half_linear_kernel(const Operands& make) {
  const auto half = [&](at::IntArrayRef sizes) {
    return at::randn(sizes, make.options.dtype(at::kFloat)).to(at::kHalf).requires_grad_();
  };
  const at::Tensor x = half({make.batch() * make.tokens(), make.dim}),
                   weight = half({4 * make.dim, make.dim});
  const auto forward = [=] {
    return std::vector{
        kernels::linear(x, weight, {}, {.products = {.type = at::kHalf}, .result = at::kBFloat16})};
  };
  const Cost cost = product_cost(make, 4 * static_cast<double>(make.dim));
  return {"half_linear", {x, weight}, forward, cost, {2 * cost.numbers, 2 * cost.flops}};
}

}  // namespace fathom::bench
