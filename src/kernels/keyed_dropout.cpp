#include "kernels/keyed_dropout.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

at::Tensor call(const at::Tensor& x, const at::Tensor& key_B, int64_t stream, double probability) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, double)>("fathom::keyed_dropout");
  return op.call(x, key_B, stream, probability);
}

struct KeyedDropoutFunction : torch::autograd::Function<KeyedDropoutFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& key_B, int64_t stream, double probability) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({key_B});
    context->saved_data["stream"] = stream;
    context->saved_data["probability"] = probability;
    return call(x, key_B, stream, probability);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto grad_x =
        call(grads[0], context->get_saved_variables()[0], context->saved_data["stream"].toInt(),
             context->saved_data["probability"].toDouble());
    return {grad_x, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor keyed_dropout(const at::Tensor& x, const at::Tensor& key_B, int64_t stream, double probability) {
  FATHOM_CHECK(x.dim() > 0 && key_B.dim() == 1 && key_B.size(0) == x.size(0),
               "[keyed_dropout] expected one key a sample, got {} keys for {} samples", key_B.numel(),
               x.dim() > 0 ? x.size(0) : 0);
  FATHOM_CHECK(probability >= 0 && probability < 1, "[keyed_dropout] expected 0 <= probability < 1, got {}",
               probability);
  FATHOM_CHECK(x.numel() / std::max<int64_t>(1, x.size(0)) <= 0xffffffff,
               "[keyed_dropout] samples of {} elements are too large", x.numel() / x.size(0));
  if (probability == 0) return x;
  return KeyedDropoutFunction::apply(x, key_B, stream, probability);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("keyed_dropout(Tensor x, Tensor key_B, int stream, float probability) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("keyed_dropout", keyed_dropout_ref::apply);
}

}  // namespace fathom::kernels
