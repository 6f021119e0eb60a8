#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "kernels/counted_gradients.h"
#include "kernels/counted_rows.h"
#include "kernels/kernel.h"

namespace fathom::bench {
namespace {

constexpr double kDensity = 0.4;

kernels::CountedRows rows_of(int64_t room, int64_t count, at::Device device) {
  const auto indices = at::TensorOptions(device).dtype(at::kInt);
  const at::Tensor place = at::arange(room, indices);
  return {.place_N = place,
          .slot_N = place,
          .start_S1 = at::arange(0, count + 1, count, indices),
          .expected = count};
}

/// The three products of one weight [out, in].
void add_products(const Operands& make, int64_t out, int64_t in, std::vector<Kernel>& made) {
  const int64_t room = make.batch() * make.tokens();
  const auto count = std::max<int64_t>(1, std::llround(kDensity * static_cast<double>(room)));
  const kernels::CountedRows rows = rows_of(room, count, make.options.device());
  const at::Tensor x = make.random({room, in}).detach(), grad = make.random({room, out}).detach(),
                   weight = make.random({out, in}).detach();
  const auto grad_weight = at::empty({out, in}, make.options.dtype(at::kFloat));
  const auto n = static_cast<double>(count), width = static_cast<double>(in + out),
             weights = static_cast<double>(in * out);
  const Cost cost = {n * width + weights, 2 * n * weights};
  const auto add = [&](const char* name, std::function<std::vector<at::Tensor>()> run, const Cost& least) {
    made.push_back({.name = name,
                    .inputs = {},
                    .forward = std::move(run),
                    .forward_cost = least,
                    .weight = fmt::format("{}x{}", out, in)});
  };
  add(
      "counted_linear", [=] { return std::vector{kernels::counted_linear(x, weight, rows)}; }, cost);
  add(
      "counted_input_grad", [=] { return std::vector{kernels::counted_input_grad(grad, weight, rows)}; },
      cost);
  // Its result is of four bytes a number.
  const auto weight_grad = [=] {
    at::Tensor result = grad_weight;
    kernels::counted_weight_grad(grad, x, rows, result);
    return std::vector{result};
  };
  add("counted_weight_grad", weight_grad, {cost.numbers + weights, cost.flops});
}

}  // namespace

std::vector<Kernel> counted_kernels(const Operands& make) {
  const int64_t dim = make.dim, inner = (8 * dim / 3 + 255) / 256 * 256;
  if (!kernels::has_counted_rows(make.random({1, 1, dim}), dim / make.heads())) return {};
  std::vector<Kernel> made;
  add_products(make, 3 * dim, dim, made);    // queries, keys and values
  add_products(make, dim, dim, made);        // attention's output
  add_products(make, 2 * inner, dim, made);  // SwiGLU's gates and values
  add_products(make, dim, inner, made);      // and what follows it
  return made;
}

}  // namespace fathom::bench
