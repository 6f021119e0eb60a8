#include "kernels/token_scorer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/counted_gradients.h"
#include "kernels/counted_product_gradient.h"
#include "kernels/product_type.h"
#include "kernels/row_scores.h"

namespace fathom::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The scorer's inputs beside x.
enum : size_t { kNorm, kProject, kShift, kOut, kBias };
constexpr size_t kScorerGradients = 9;  ///< of x and these; what is behind them has none

/// What the mean is taken over.
struct ScorerView {
  bool causal = true;
  at::Tensor present_BT = {};  ///< of a mean over whole rows; undefined: all
};

/// The scorer's inputs, whose gradients may have rooms. The rooms' owner outlives the pass.
struct ScorerHolder : torch::CustomClassHolder {
  ScorerHolder(at::TensorList w, GradientRooms* r, ScorerView v)
      : weights(w.vec()), rooms(r), view(std::move(v)) {}

  /// Where the projection's gradient of `type` is to lie, or undefined: it is no step's first.
  at::Tensor room(at::ScalarType type) const {
    const at::Tensor& project = weights[kProject];
    return rooms != nullptr && project.scalar_type() == type ? rooms->take(project) : at::Tensor();
  }

  bool are_kept() const { return std::all_of(weights.begin(), weights.end(), is_kept); }

  std::vector<at::Tensor> weights;
  GradientRooms* rooms;
  ScorerView view;
};

/// Scores, and the sums of a causal scorer. `kept`, or null, takes what the backward pass wants beside the
/// inputs.
struct ScorerKept {
  ScorerProduct product;
  at::Tensor norm, project;  ///< in the states' type
};
variable_list scored(const at::Tensor& x_BTD, at::TensorList inputs, double eps, const LinearTypes& types,
                     const ScorerView& view, ScorerKept* kept) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto type = x_BTD.scalar_type();
  const auto norm = narrowed_weight(inputs[kNorm], type, types.copies),
             project = narrowed_weight(inputs[kProject], type, types.copies);
  ScorerProduct product = scorer_product(x_BTD, norm, project, eps);
  const ScorerWeights behind = {inputs[kShift], inputs[kOut], inputs[kBias]};
  at::Tensor score_BT, sum_B1I;
  if (view.causal) {
    sum_B1I = at::empty({x_BTD.size(0), 1, project.size(0) / 2}, product.both.options());
    score_BT = causal_scores(product, behind, sum_B1I);
  } else {
    std::tie(score_BT, product.chunk_sums) = row_scores(product.both, behind, view.present_BT);
    sum_B1I = at::empty({0}, product.both.options());
  }
  if (kept != nullptr) *kept = {product, norm, project};
  return {score_BT, sum_B1I};
}

struct ScorerFunction : torch::autograd::Function<ScorerFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x_BTD, at::TensorList inputs,
                               double eps, const LinearTypes& types, const ScorerView& view) {
    ScorerKept kept;
    auto result = scored(x_BTD, inputs, eps, types, view, &kept);
    context->save_for_backward({x_BTD, kept.norm, kept.project, kept.product.both, kept.product.scale_BT1,
                                kept.product.chunk_sums, inputs[kShift], inputs[kOut], inputs[kBias]});
    context->saved_data["weights"] =
        c10::IValue::make_capsule(c10::make_intrusive<ScorerHolder>(inputs, types.rooms, view));
    context->mark_non_differentiable({result[1]});
    context->set_materialize_grads(false);  // of the sums: zeros that nobody reads
    return result;
  }

  static variable_list backward(AutogradContext* context, const variable_list& above) {
    if (!above[0].defined()) return variable_list(kScorerGradients);
    const auto kept = context->get_saved_variables();
    const auto capsule = context->saved_data["weights"].toCapsule();
    const auto& holder = *static_cast<ScorerHolder*>(capsule.get());
    const at::Tensor grad_BT = above[0].contiguous();
    const at::Tensor room = holder.room(c10::promoteTypes(kept[0].scalar_type(), at::kFloat));
    SideStream* side = holder.rooms != nullptr ? holder.rooms->side() : nullptr;
    if (side == nullptr || !room.defined() || !holder.are_kept()) {
      if (side != nullptr) side->join();  // autograd may add what is made here to what was made there
      return gradients(grad_BT, kept, room, holder.view);
    }
    variable_list read = kept, made;
    read.push_back(grad_BT);
    if (holder.view.present_BT.defined()) read.push_back(holder.view.present_BT);
    side->run([&] { made = gradients(grad_BT, kept, room, holder.view); }, read);
    return made;
  }

 private:
  /// `room`: of the projection's gradient, or undefined.
  static variable_list gradients(const at::Tensor& grad_BT, const variable_list& kept, const at::Tensor& room,
                                 const ScorerView& view) {
    const at::Tensor &x = kept[0], &norm = kept[1], &project = kept[2];
    const ScorerProduct product = {.both = kept[3], .scale_BT1 = kept[4], .chunk_sums = kept[5]};
    // The type of products, as in the layers.
    const auto type = x.is_cuda() ? x.scalar_type() : product.both.scalar_type();
    const ScorerWeights weights = {kept[6], kept[7], kept[8]};
    const auto [grad_both, behind] =
        view.causal ? causal_scores_backward(grad_BT, product, weights, type)
                    : row_scores_backward(grad_BT, product, weights, view.present_BT, type);
    // Of the projection with the norm's weight in it, which multiplies rows that are normed alone: nothing
    // flows on to these, so that is all that both need.
    const auto joint = wide_product(grad_both.flatten(0, 1).t(), x.flatten(0, 1));
    at::Tensor grad_project = room.defined() ? room : at::empty_like(joint);
    const auto grad_norm = scorer_weight_grad(joint, norm, project, grad_project);
    return {at::Tensor(), grad_norm,    grad_project, behind.shift, behind.out,
            behind.bias,  at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

variable_list scores_of(const at::Tensor& x_BTD, const TokenScorerWeights& weights, double eps,
                        const LinearTypes& types, const ScorerView& view) {
  const variable_list inputs = {weights.norm, weights.project, weights.behind.shift, weights.behind.out,
                                weights.behind.bias};
  const auto x = x_BTD.detach().contiguous();
  return at::GradMode::is_enabled() ? ScorerFunction::apply(x, at::TensorList(inputs), eps, types, view)
                                    : scored(x, inputs, eps, types, view, nullptr);
}

}  // namespace

std::pair<at::Tensor, at::Tensor> causal_scorer(const at::Tensor& x_BTD, const TokenScorerWeights& weights,
                                                double eps, const LinearTypes& types) {
  const auto found = scores_of(x_BTD, weights, eps, types, {});
  return {found[0], found[1]};
}

at::Tensor row_scorer(const at::Tensor& x_BTD, const TokenScorerWeights& weights, double eps,
                      const at::Tensor& present_BT, const LinearTypes& types) {
  return scores_of(x_BTD, weights, eps, types, {.causal = false, .present_BT = present_BT})[0];
}

}  // namespace fathom::kernels
