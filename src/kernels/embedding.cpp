#include "kernels/embedding.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/linear_gradient.h"

namespace fathom::kernels {
namespace {

at::Tensor zeros_like_in(const at::Tensor& x, at::ScalarType type) {
  return at::zeros(x.sizes(), x.options().dtype(type).requires_grad(false));
}

/// Undefined where it is added to another contribution.
at::Tensor gradient(const WeightHolder& of, const at::Tensor& ids_N, const at::Tensor& rows_ND) {
  const auto add = [ids_N, rows_ND](const at::Tensor& sum_VD) { add_embedding_rows(sum_VD, ids_N, rows_ND); };
  if (of.rooms != nullptr) {
    const at::Tensor room = of.rooms->take(of.weight);
    if (room.defined()) {
      add(room.zero_());
      return room;
    }
    if (of.rooms->add(of.weight, add)) return {};
  }
  const at::ScalarType type = of.weight.scalar_type();
  const at::Tensor sum_VD = zeros_like_in(of.weight, c10::promoteTypes(type, at::kFloat));
  add(sum_VD);
  return sum_VD.to(type);
}

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& weight_VD,
                            const at::Tensor& ids, at::ScalarType type, GradientRooms* rooms) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({ids});
    context->saved_data["weight"] =
        c10::IValue::make_capsule(c10::make_intrusive<WeightHolder>(weight_VD, rooms));
    static const auto op =
        find_op<at::Tensor(const at::Tensor&, const at::Tensor&, at::ScalarType)>("fathom::embedding_rows");
    return op.call(weight_VD, ids, type);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (!context->needs_input_grad(0)) return {{}, {}, {}, {}};
    const auto capsule = context->saved_data["weight"].toCapsule();
    const auto& of = *static_cast<const WeightHolder*>(capsule.get());
    const at::Tensor ids = context->get_saved_variables()[0];
    return {gradient(of, ids.reshape(-1), grads[0].reshape({ids.numel(), of.weight.size(1)})), {}, {}, {}};
  }
};

}  // namespace

at::Tensor embedding(const at::Tensor& weight_VD, const at::Tensor& ids, at::ScalarType type,
                     GradientRooms* rooms) {
  FATHOM_CHECK(weight_VD.dim() == 2 && ids.scalar_type() == at::kLong && ids.device() == weight_VD.device(),
               "[embedding] expected a table [V, D] and int64 ids on {}, got {} dimensions and {} on {}",
               weight_VD.device().str(), weight_VD.dim(), c10::toString(ids.scalar_type()),
               ids.device().str());
  return EmbeddingFunction::apply(weight_VD, ids, type, rooms);
}

void add_embedding_rows(const at::Tensor& sum_VD, const at::Tensor& ids_N, const at::Tensor& rows_ND) {
  FATHOM_CHECK(sum_VD.dim() == 2 && sum_VD.is_contiguous() && rows_ND.dim() == 2 &&
                   rows_ND.size(1) == sum_VD.size(1) && ids_N.dim() == 1 &&
                   ids_N.scalar_type() == at::kLong && ids_N.size(0) == rows_ND.size(0),
               "[embedding] expected a dense sum [V, D], int64 ids [N] and rows [N, D]");
  if (rows_ND.numel() == 0) return;
  const at::ScalarType type = sum_VD.scalar_type(), wide = c10::promoteTypes(type, at::kFloat);
  const at::AutoDispatchBelowADInplaceOrView below;
  const at::Tensor total_VD = type == wide ? sum_VD : zeros_like_in(sum_VD, wide);
  static const auto op =
      find_op<void(const at::Tensor&, const at::Tensor&, const at::Tensor&)>("fathom::add_embedding_rows_");
  op.call(total_VD, ids_N, rows_ND);
  if (!total_VD.is_same(sum_VD)) sum_VD.add_(total_VD);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("embedding_rows(Tensor weight, Tensor ids, ScalarType type) -> Tensor");
  library.def("add_embedding_rows_(Tensor(a!) sum, Tensor ids, Tensor rows) -> ()");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("embedding_rows", embedding_ref::rows);
  library.impl("add_embedding_rows_", embedding_ref::add);
}

}  // namespace fathom::kernels
