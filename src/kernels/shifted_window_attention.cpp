#include "kernels/shifted_window_attention.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/pass_learns.h"

namespace fathom::kernels {
namespace {

constexpr int64_t kFusedHeadSize = 32;  // what src/cuda/shifted_window_attention.h takes
constexpr int64_t kFusedMaxPlaces = 64;
constexpr int64_t kCpuMaxPlaces = 256;  // whose scores the second cache holds

struct ShiftedWindowFunction : torch::autograd::Function<ShiftedWindowFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& qkv,
                            const at::Tensor& bias_HTT, int64_t side, int64_t shift) {
    static const auto op = find_op<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, int64_t)>(
        "fathom::shifted_window_attention");
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({qkv, bias_HTT});
    context->saved_data["side"] = side;
    context->saved_data["shift"] = shift;
    return op.call(qkv, bias_HTT, side, shift);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op = find_op<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                                      const at::Tensor&, int64_t, int64_t)>(
        "fathom::shifted_window_attention_backward");
    const auto saved = context->get_saved_variables();
    auto [grad_qkv, grad_bias] = op.call(grads[0], saved[0], saved[1], context->saved_data["side"].toInt(),
                                         context->saved_data["shift"].toInt());
    return {grad_qkv, grad_bias, at::Tensor(), at::Tensor()};
  }
};

/// Where no kernel is registered for the device.
bool has_no_kernel(const at::Tensor& /*x*/, int64_t /*side*/, int64_t /*shift*/, bool /*learns*/) {
  return false;
}

}  // namespace

bool has_shifted_window_attention(const at::Tensor& x, const WindowShape& shape, int64_t head_size) {
  static const auto fits =
      find_op<bool(const at::Tensor&, int64_t, int64_t, bool)>("fathom::shifted_window_attention_fits");
  const int64_t places = shape.side * shape.side;
  if (shape.height % shape.side != 0 || shape.width % shape.side != 0) return false;
  if (x.is_cpu()) return at::isFloatingType(x.scalar_type()) && places <= kCpuMaxPlaces;
  at::AutoDispatchBelowADInplaceOrView below;
  return x.is_cuda() && (x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16) &&
         head_size == kFusedHeadSize && places <= kFusedMaxPlaces &&
         fits.call(x, shape.side, shape.shift, pass_learns());
}

at::Tensor shifted_window_attention(const at::Tensor& qkv, const at::Tensor& bias_HTT,
                                    const WindowShape& shape) {
  FATHOM_CHECK(qkv.dim() == 4 && qkv.size(1) == shape.height && qkv.size(2) == shape.width &&
                   shape.side > 0 && shape.height % shape.side == 0 && shape.width % shape.side == 0 &&
                   shape.shift >= 0 && shape.shift < shape.side,
               "[shifted_window_attention] expected [B, {}, {}, D] and windows that divide it, got {} "
               "dimensions, side {}, shift {}",
               shape.height, shape.width, qkv.dim(), shape.side, shape.shift);
  FATHOM_CHECK(bias_HTT.dim() == 3 && bias_HTT.size(0) > 0 && bias_HTT.size(1) == shape.side * shape.side &&
                   bias_HTT.size(2) == bias_HTT.size(1) && qkv.size(3) % (3 * bias_HTT.size(0)) == 0,
               "[shifted_window_attention] expected a bias [H, {0}, {0}] with 3·H a divisor of {1}",
               shape.side * shape.side, qkv.size(3));
  return ShiftedWindowFunction::apply(qkv, bias_HTT, shape.side, shape.shift);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("shifted_window_attention(Tensor qkv, Tensor bias, int side, int shift) -> Tensor");
  library.def(
      "shifted_window_attention_backward(Tensor grad, Tensor qkv, Tensor bias, int side, int shift) -> "
      "(Tensor, Tensor)");
  library.def("shifted_window_attention_fits(Tensor x, int side, int shift, bool learns) -> bool");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("shifted_window_attention", shifted_window_attention_ref::forward);
  library.impl("shifted_window_attention_backward", shifted_window_attention_ref::backward);
  library.impl("shifted_window_attention_fits", has_no_kernel);
}

}  // namespace fathom::kernels
