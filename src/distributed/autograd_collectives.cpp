#include "distributed/autograd_collectives.h"

#include <torch/csrc/autograd/custom_function.h>

namespace fathom {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class AllGather final : public torch::autograd::Function<AllGather> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, int64_t collective) {
    context->saved_data["collective"] = collective;
    return reinterpret_cast<Collective*>(collective)->all_gather(x);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto* collective = reinterpret_cast<Collective*>(context->saved_data["collective"].toInt());
    return {collective->reduce_scatter(gradients[0]), at::Tensor()};
  }
};

}  // namespace

at::Tensor all_gather_with_gradient(Collective& collective, const at::Tensor& x) {
  return AllGather::apply(x, reinterpret_cast<int64_t>(&collective));
}

}  // namespace fathom
