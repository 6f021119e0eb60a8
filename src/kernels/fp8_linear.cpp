#include "kernels/fp8_linear.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <utility>
#include <vector>

#include "kernels/call.h"
#include "kernels/linear.h"

namespace fathom::kernels {
namespace {

/// What a backward pass needs beside matrices. The room's owner outlives the pass.
struct Fp8Holder : torch::CustomClassHolder {
  Fp8Holder(at::Tensor w, at::Tensor b, at::ScalarType g, GradientRooms* r)
      : weight(std::move(w)), beyond(std::move(b)), gradients(g), rooms(r) {}
  at::Tensor weight, beyond;
  at::ScalarType gradients;
  GradientRooms* rooms;

  at::Tensor room() const {
    const at::Tensor found = rooms != nullptr ? rooms->take(weight) : at::Tensor();
    return found.defined() ? found : at::empty(weight.sizes(), weight.options().requires_grad(false));
  }
};

/// What a pass of `fp8_linear` is told beside its inputs.
struct Fp8Pass {
  const Fp8Products& products;
  GradientRooms* rooms;
  bool learns;  ///< somebody asks for the weight's gradient
};

TileScales wished(bool wanted, TileScales scales) {
  return wanted ? scales : TileScales::kUnwanted;
}

Fp8Pair weight_in_fp8(const at::Tensor& weight, const Fp8Products& products) {
  if (products.weights != nullptr) return products.weights->of(weight, products.beyond);
  return fp8_tiles(weight, {.plain = TileScales::kByTile, .turned = TileScales::kByTile}, products.beyond);
}

struct Fp8LinearFunction : torch::autograd::Function<Fp8LinearFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const Fp8Pass& pass) {
    at::AutoDispatchBelowADInplaceOrView below;
    const int64_t in = weight.size(1), out = weight.size(0);
    const Fp8Pair rows =
        fp8_tiles(x.reshape({-1, in}).contiguous(),
                  {.plain = TileScales::kByRow, .turned = wished(pass.learns, TileScales::kByTile)},
                  pass.products.beyond);
    const Fp8Pair factor = weight_in_fp8(weight, pass.products);
    auto y = at::empty({rows.plain.values_RK.size(0), out}, x.options());
    fp8_product(rows.plain, factor.plain, bias.value_or(at::Tensor()), y);
    context->save_for_backward(
        {rows.turned.values_RK, rows.turned.scales, factor.turned.values_RK, factor.turned.scales});
    context->saved_data["holder"] = c10::IValue::make_capsule(
        c10::make_intrusive<Fp8Holder>(weight, pass.products.beyond, pass.products.gradients, pass.rooms));
    context->saved_data["biased"] = bias.has_value();
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = out;
    return y.view(shape);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto capsule = context->saved_data["holder"].toCapsule();
    const auto& held = *static_cast<Fp8Holder*>(capsule.get());
    const Fp8Matrix turned_rows = {saved[0], saved[1]}, turned_weight = {saved[2], saved[3]};
    const int64_t out = held.weight.size(0);
    const bool passes_on = context->needs_input_grad(0), learns = context->needs_input_grad(1);
    const auto grad = grads[0].contiguous().view({-1, out});
    at::Tensor grad_x, grad_weight, grad_bias;
    const Fp8Pair narrow = fp8_tiles(grad,
                                     {.type = held.gradients,
                                      .plain = wished(passes_on, TileScales::kByRow),
                                      .turned = wished(learns, TileScales::kByRow)},
                                     held.beyond);
    if (passes_on) {
      std::vector<int64_t> shape = grads[0].sizes().vec();
      shape.back() = held.weight.size(1);
      grad_x = at::empty({grad.size(0), shape.back()}, grad.options());
      fp8_product(narrow.plain, turned_weight, {}, grad_x);
      grad_x = grad_x.view(shape);
    }
    if (learns) {
      grad_weight = held.room();
      fp8_product(narrow.turned, turned_rows, {}, grad_weight);
    }
    if (context->saved_data["biased"].toBool() && context->needs_input_grad(2)) grad_bias = column_sum(grad);
    return {grad_x, grad_weight, grad_bias, at::Tensor()};
  }
};

}  // namespace

const Fp8Pair& Fp8Weights::of(const at::Tensor& weight, const at::Tensor& beyond) {
  Entry& entry = entries_[weight.unsafeGetTensorImpl()];
  if (!entry.weight.defined() || entry.version != weight._version()) {
    const at::AutoDispatchBelowADInplaceOrView below;
    entry = {weight, weight._version(),
             fp8_tiles(weight, {.plain = TileScales::kByTile, .turned = TileScales::kByTile}, beyond)};
  }
  return entry.pair;
}

bool multiplies_in_fp8(const at::Tensor& x, const at::Tensor& weight, const Fp8Products& products) {
  if (x.scalar_type() != at::kBFloat16 || weight.scalar_type() != at::kFloat) return false;
  const int64_t in = weight.size(1), out = weight.size(0), rows = x.numel() / in;
  if (rows == 0 || rows % kFp8Multiple != 0 || in % kFp8Multiple != 0 || out % kFp8Multiple != 0)
    return false;
  const auto product = [](int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); };
  return product(rows, in) * static_cast<double>(out) >=
         products.least_intensity * (product(rows, in) + product(rows, out) + product(in, out));
}

at::Tensor fp8_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const Fp8Products& products, GradientRooms* rooms) {
  const bool learns = at::GradMode::is_enabled() && weight.requires_grad();
  return Fp8LinearFunction::apply(x, weight, optional(bias), Fp8Pass{products, rooms, learns});
}

}  // namespace fathom::kernels
