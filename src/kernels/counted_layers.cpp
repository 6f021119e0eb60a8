#include "kernels/counted_layers.h"

#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;

void check_layer_rows(const at::Tensor& x, const CountedRows& rows, const char* op) {
  FATHOM_CHECK(x.dim() == 2 && x.size(0) == rows.place_N.numel(), "[{}] expected rows for {} tokens, got {}",
               op, rows.place_N.numel(), x.dim() > 0 ? x.size(0) : 0);
}

void check_biased_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const CountedRows& rows, const char* op) {
  check_layer_rows(x, rows, op);
  FATHOM_CHECK(weight.dim() == 2 && weight.size(1) == x.size(1) && bias.numel() == weight.size(0) &&
                   weight.scalar_type() == x.scalar_type() && bias.scalar_type() == x.scalar_type(),
               "[{}] expected a weight and a bias for {} features, of the rows' type", op, x.size(1));
}

}  // namespace

bool has_counted_layers(const at::Tensor& x_BTD) {
  constexpr int64_t kAnyHead = 16, kWidest = 2048;
  return x_BTD.size(-1) <= kWidest && has_counted_rows(x_BTD, kAnyHead);
}

at::Tensor gathered_layer_norm(const at::Tensor& x_BTD, const at::Tensor& weight, const at::Tensor& bias,
                               double eps, const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, const at::Tensor&,
                         const at::Tensor&)>("fathom::gathered_layer_norm");
  return op.call(x_BTD, weight, bias, eps, rows.place_N, rows.all());
}

at::Tensor counted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const CountedRows& rows) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                            const at::Tensor&, int64_t)>("fathom::counted_linear_bias");
  check_biased_product(x, weight, bias, rows, "counted_linear");
  return op.call(x, weight, bias, rows.all(), rows.expected);
}

CountedGelu counted_linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                const CountedRows& rows, bool keep) {
  static const auto op =
      find_op<Two(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, bool)>(
          "fathom::counted_linear_gelu");
  check_biased_product(x, weight, bias, rows, "counted_linear_gelu");
  auto [y, inner] = op.call(x, weight, bias, rows.all(), rows.expected, keep);
  return {y, inner};
}

std::pair<at::Tensor, at::Tensor> gathered_layer_norm_backward(const at::Tensor& grad,
                                                               const at::Tensor& x_BTD,
                                                               const at::Tensor& weight, double eps,
                                                               at::Tensor& grad_BTD,
                                                               const CountedRows& rows) {
  static const auto op =
      find_op<Two(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, at::Tensor&,
                  const at::Tensor&, const at::Tensor&)>("fathom::gathered_layer_norm_backward_");
  check_layer_rows(grad, rows, "gathered_layer_norm_backward");
  FATHOM_CHECK(grad_BTD.sizes() == x_BTD.sizes() && grad_BTD.is_contiguous() &&
                   x_BTD.numel() == grad.numel() && weight.numel() == grad.size(1),
               "[gathered_layer_norm_backward] expected a dense gradient like the states");
  auto [grad_weight, grad_bias] = op.call(grad, x_BTD, weight, eps, grad_BTD, rows.place_N, rows.start_S1);
  return {grad_weight, grad_bias};
}

std::pair<at::Tensor, at::Tensor> counted_gelu_backward(const at::Tensor& grad, const at::Tensor& inner,
                                                        const CountedRows& rows) {
  static const auto op =
      find_op<Two(const at::Tensor&, const at::Tensor&, const at::Tensor&)>("fathom::counted_gelu_backward");
  check_layer_rows(grad, rows, "counted_gelu_backward");
  auto [grad_inner, sum] = op.call(grad, inner, rows.start_S1);
  return {grad_inner, sum};
}

at::Tensor counted_column_sum(const at::Tensor& x, const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::counted_column_sum");
  check_layer_rows(x, rows, "counted_column_sum");
  return op.call(x, rows.start_S1);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "gathered_layer_norm(Tensor x, Tensor weight, Tensor bias, float eps, Tensor place, Tensor start) -> "
      "Tensor");
  library.def(
      "counted_linear_bias(Tensor x, Tensor weight, Tensor bias, Tensor start, int expected) -> Tensor");
  library.def(
      "counted_linear_gelu(Tensor x, Tensor weight, Tensor bias, Tensor start, int expected, bool keep) -> "
      "(Tensor, Tensor)");
  library.def(
      "gathered_layer_norm_backward_(Tensor grad, Tensor x, Tensor weight, float eps, Tensor(a!) grad_x, "
      "Tensor place, Tensor start) -> (Tensor, Tensor)");
  library.def("counted_gelu_backward(Tensor grad, Tensor inner, Tensor start) -> (Tensor, Tensor)");
  library.def("counted_column_sum(Tensor x, Tensor start) -> Tensor");
}

}  // namespace fathom::kernels
