#include "kernels/window.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using Signature = at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t, int64_t);

at::Tensor call(bool partition, const at::Tensor& x, const WindowShape& shape) {
  static const auto partition_op = find_op<Signature>("fathom::window_partition");
  static const auto merge_op = find_op<Signature>("fathom::window_merge");
  return (partition ? partition_op : merge_op).call(x, shape.height, shape.width, shape.side, shape.shift);
}

/// Each direction is the adjoint of the other.
struct WindowFunction : torch::autograd::Function<WindowFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, bool partition,
                            const WindowShape& shape) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->saved_data["partition"] = partition;
    context->saved_data["shape"] = std::vector<int64_t>{shape.height, shape.width, shape.side, shape.shift};
    return call(partition, x, shape);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto sizes = context->saved_data["shape"].toIntVector();
    const auto grad =
        call(!context->saved_data["partition"].toBool(), grads[0], {sizes[0], sizes[1], sizes[2], sizes[3]});
    return {grad, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor window_partition(const at::Tensor& x, const WindowShape& shape) {
  FATHOM_CHECK(
      x.dim() == 4 && x.size(1) == shape.height && x.size(2) == shape.width && shape.side > 0 &&
          shape.shift >= 0 && shape.shift < shape.side,
      "[window_partition] expected [B, {}, {}, D] and 0 <= shift < side, got {} dimensions, side {}, "
      "shift {}",
      shape.height, shape.width, x.dim(), shape.side, shape.shift);
  return WindowFunction::apply(x, true, shape);
}

at::Tensor window_merge(const at::Tensor& x, const WindowShape& shape) {
  FATHOM_CHECK(x.dim() == 4 && x.size(1) == shape.count() && x.size(2) == shape.side * shape.side,
               "[window_merge] expected [B, {}, {}, D], got {} dimensions", shape.count(),
               shape.side * shape.side, x.dim());
  return WindowFunction::apply(x, false, shape);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("window_partition(Tensor x, int height, int width, int side, int shift) -> Tensor");
  library.def("window_merge(Tensor x, int height, int width, int side, int shift) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("window_partition", window_ref::partition);
  library.impl("window_merge", window_ref::merge);
}

}  // namespace fathom::kernels
