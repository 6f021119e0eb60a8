#include "kernels/counted_branch.h"

#include <utility>

#include "base/error.h"
#include "kernels/counted_layers.h"
#include "kernels/counted_product_gradient.h"
#include "kernels/product_type.h"

namespace fathom::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// `weights`: the function's inputs behind x, of which the branch may know the gradients' places.
struct BranchHolder : torch::CustomClassHolder {
  BranchHolder(CountedBranch b, CountedRows r, WindowShape s, double e, at::TensorList w)
      : branch(std::move(b)), rows(std::move(r)), shape(s), eps(e), weights(w.vec()) {
    at::Tensor& score_BT = branch.score.score_BT;
    if (score_BT.defined()) score_BT = score_BT.detach();
  }

  CountedBranch branch;
  CountedRows rows;  ///< of tokens
  WindowShape shape;
  double eps;
  std::vector<at::Tensor> weights;
};

/// Inputs behind x but for the scores, which are the last where they learn.
at::TensorList weights_of(at::TensorList inputs, const CountedBranch& branch) {
  return inputs.slice(0, inputs.size() - (branch.score.score_BT.defined() ? 1 : 0));
}

at::Tensor branch_dropped(const at::Tensor& y, const CountedBranch& branch, const CountedRows& rows,
                          const at::Tensor& count_S1) {
  return dropped_rows(y, branch.key_B, branch.drop, rows, count_S1);
}

/// In the type of `like`.
at::Tensor cast_to(const at::Tensor& gradient, const at::Tensor& like) {
  return gradient.to(like.scalar_type());
}

/// A forward pass in progress. `kept` takes what the backward pass wants; null: whatever is used is freed.
struct BranchForward {
  const at::Tensor& x;
  at::TensorList inputs;
  const CountedBranch& branch;
  variable_list* kept;

  at::Tensor keep(size_t i, at::Tensor made) const {
    if (kept != nullptr) (*kept)[i] = made;
    return made;
  }
  at::Tensor narrowed(size_t i) const { return narrowed_weight(inputs[i], x.scalar_type(), branch.copies); }
};

/// A backward pass in progress: of what came from above, and of all inputs.
struct BranchBackward {
  variable_list kept = {};
  c10::IValue capsule = {};
  at::Tensor grad = {};  ///< nobody else reads its memory
  variable_list grads = {};

  BranchBackward(AutogradContext& context, const variable_list& above)
      : kept(context.get_saved_variables()), capsule(context.saved_data["branch"]) {
    grad = own_gradient(above[0]);
    grads.resize(1 + holder().weights.size() + (learns() ? 1 : 0));
  }

  const BranchHolder& holder() const { return *static_cast<const BranchHolder*>(capsule.toCapsule().get()); }
  bool learns() const { return holder().branch.score.score_BT.defined(); }

  /// Of input `i` behind x, a bias: the sum of a product's gradient.
  void set_bias(size_t i, const at::Tensor& sum) { grads[1 + i] = cast_to(sum, holder().weights[i]); }
  void set_norm(size_t weight, std::pair<at::Tensor, at::Tensor> made) {
    grads[1 + weight] = cast_to(made.first, holder().weights[weight]);
    grads[2 + weight] = cast_to(made.second, holder().weights[weight + 1]);
  }
  /// All gradients, of inputs that are followed by so many others.
  variable_list finished(size_t others) {
    grads[0] = std::move(grad);
    grads.resize(grads.size() + others);
    return std::move(grads);
  }
};

void save_branch(AutogradContext& context, variable_list kept, c10::intrusive_ptr<BranchHolder> holder) {
  context.saved_data["branch"] = c10::IValue::make_capsule(std::move(holder));
  context.save_for_backward(std::move(kept));
}

/// The feed-forward layer's inputs behind x; then the scores, where they learn.
struct MlpInput {
  enum : size_t { kNorm, kNormBias, kUp, kUpBias, kDown, kDownBias, kCount };
};
/// What its backward pass wants.
struct MlpKept {
  enum : size_t { kX, kNormed, kInner, kGelu, kAdded, kUp, kDown, kCount };
};

at::Tensor feed_forward(const at::Tensor& x_BTD, at::TensorList inputs, double eps,
                        const CountedBranch& branch, variable_list* kept) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const CountedRows& rows = branch.rows;
  const auto x = x_BTD.contiguous();
  const BranchForward pass = {x, inputs, branch, kept};
  pass.keep(MlpKept::kX, x);
  auto y = pass.keep(MlpKept::kNormed,
                     gathered_layer_norm(x, inputs[MlpInput::kNorm], inputs[MlpInput::kNormBias], eps, rows));
  CountedGelu gelu = counted_linear_gelu(y, pass.keep(MlpKept::kUp, pass.narrowed(MlpInput::kUp)),
                                         pass.narrowed(MlpInput::kUpBias), rows, kept != nullptr);
  pass.keep(MlpKept::kInner, std::move(gelu.inner));
  y = pass.keep(MlpKept::kGelu, std::move(gelu.y));
  y = counted_linear(y, pass.keep(MlpKept::kDown, pass.narrowed(MlpInput::kDown)),
                     pass.narrowed(MlpInput::kDownBias), rows);
  y = pass.keep(MlpKept::kAdded, branch_dropped(y, branch, rows, rows.all()));
  return merged_rows(x, {}, y, rows);
}

struct FeedForwardFunction : torch::autograd::Function<FeedForwardFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_BTD, at::TensorList inputs,
                            double eps, const CountedBranch& branch) {
    variable_list kept(MlpKept::kCount);
    auto y = feed_forward(x_BTD, inputs, eps, branch, &kept);
    save_branch(*context, std::move(kept),
                c10::make_intrusive<BranchHolder>(branch, branch.rows, WindowShape(), eps,
                                                  weights_of(inputs, branch)));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& above) {
    BranchBackward pass(*context, above);
    const BranchHolder& held = pass.holder();
    const CountedRows& rows = held.rows;
    const variable_list& kept = pass.kept;
    CountedProductGradient product(*context, held.weights, held.branch.rooms, rows, pass.grads);

    const auto [grad_rows, grad_score] =
        merged_rows_backward(pass.grad, {}, kept[MlpKept::kAdded], held.branch.score, rows);
    if (pass.learns()) pass.grads.back() = grad_score;
    const auto grad_added = branch_dropped(grad_rows, held.branch, rows, rows.start_S1);
    pass.set_bias(MlpInput::kDownBias, counted_column_sum(grad_added, rows));
    const auto [grad_inner, up_sum] = counted_gelu_backward(
        product(grad_added, kept[MlpKept::kGelu], kept[MlpKept::kDown], MlpInput::kDown),
        kept[MlpKept::kInner], rows);
    pass.set_bias(MlpInput::kUpBias, up_sum);
    const auto grad_normed = product(grad_inner, kept[MlpKept::kNormed], kept[MlpKept::kUp], MlpInput::kUp);
    pass.set_norm(MlpInput::kNorm,
                  gathered_layer_norm_backward(grad_normed, kept[MlpKept::kX], held.weights[MlpInput::kNorm],
                                               held.eps, pass.grad, rows));
    product.join();
    return pass.finished(2);
  }
};

/// The same of attention in windows.
struct WindowInput {
  /// The last may be missing.
  enum : size_t { kNorm, kNormBias, kQkv, kOutput, kOutputBias, kPosition, kQkvBias, kCount };
};
struct WindowKept {
  enum : size_t { kX, kNormed, kRows, kAttended, kAdded, kQkv, kOutput, kCount };
};

at::Tensor window_branch(const at::Tensor& x_BTD, at::TensorList weights, double eps,
                         const WindowShape& shape, const CountedRows& rows, const CountedBranch& branch,
                         variable_list* kept) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto x = x_BTD.contiguous();
  const BranchForward pass = {x, weights, branch, kept};
  pass.keep(WindowKept::kX, x);
  auto y = pass.keep(WindowKept::kNormed, gathered_layer_norm(x, weights[WindowInput::kNorm],
                                                              weights[WindowInput::kNormBias], eps, rows));
  const auto qkv = pass.keep(WindowKept::kQkv, pass.narrowed(WindowInput::kQkv));
  const bool has_bias = weights.size() > WindowInput::kQkvBias;
  y = pass.keep(WindowKept::kRows, has_bias
                                       ? counted_linear(y, qkv, pass.narrowed(WindowInput::kQkvBias), rows)
                                       : counted_linear(y, qkv, rows));
  y = pass.keep(WindowKept::kAttended,
                counted_window_attention(y, weights[WindowInput::kPosition], shape, rows));
  y = counted_linear(y, pass.keep(WindowKept::kOutput, pass.narrowed(WindowInput::kOutput)),
                     pass.narrowed(WindowInput::kOutputBias), rows);
  y = pass.keep(WindowKept::kAdded, branch_dropped(y, branch, rows, rows.all()));
  return merged_rows(x, {}, y, rows);
}

struct WindowFunction : torch::autograd::Function<WindowFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_BTD, at::TensorList inputs,
                            double eps, const WindowShape& shape, const CountedRows& rows,
                            const CountedBranch& branch) {
    variable_list kept(WindowKept::kCount);
    auto y = window_branch(x_BTD, weights_of(inputs, branch), eps, shape, rows, branch, &kept);
    save_branch(*context, std::move(kept),
                c10::make_intrusive<BranchHolder>(branch, rows, shape, eps, weights_of(inputs, branch)));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& above) {
    BranchBackward pass(*context, above);
    const BranchHolder& held = pass.holder();
    const CountedRows& rows = held.rows;
    const variable_list& kept = pass.kept;
    CountedProductGradient product(*context, held.weights, held.branch.rooms, rows, pass.grads);

    at::Tensor grad_rows;
    if (pass.learns()) {
      at::Tensor brought_N;
      std::tie(grad_rows, brought_N) = rows_brought(pass.grad, kept[WindowKept::kAdded], rows);
      pass.grads.back() = window_score_grad(brought_N, held.branch.score, held.branch.rows);
    } else {
      grad_rows = merged_rows_backward(pass.grad, {}, kept[WindowKept::kAdded], {}, rows).first;
    }
    const auto grad_added = branch_dropped(grad_rows, held.branch, rows, rows.start_S1);
    pass.set_bias(WindowInput::kOutputBias, counted_column_sum(grad_added, rows));
    const auto grad_attended =
        product(grad_added, kept[WindowKept::kAttended], kept[WindowKept::kOutput], WindowInput::kOutput);
    const auto [grad_qkv, grad_position] = counted_window_attention_backward(
        grad_attended, kept[WindowKept::kRows], held.weights[WindowInput::kPosition], held.shape, rows);
    pass.grads[1 + WindowInput::kPosition] = cast_to(grad_position, held.weights[WindowInput::kPosition]);
    if (held.weights.size() > WindowInput::kQkvBias)
      pass.set_bias(WindowInput::kQkvBias, counted_column_sum(grad_qkv, rows));
    const auto grad_normed =
        product(grad_qkv, kept[WindowKept::kNormed], kept[WindowKept::kQkv], WindowInput::kQkv);
    pass.set_norm(WindowInput::kNorm,
                  gathered_layer_norm_backward(grad_normed, kept[WindowKept::kX],
                                               held.weights[WindowInput::kNorm], held.eps, pass.grad, rows));
    product.join();
    return pass.finished(4);
  }
};

}  // namespace

at::Tensor counted_feed_forward(const at::Tensor& x_BTD, const CountedFeedForwardWeights& weights,
                                const CountedBranch& branch) {
  FATHOM_CHECK(
      x_BTD.dim() == 3 && x_BTD.size(0) * x_BTD.size(1) == branch.rows.place_N.numel() && x_BTD.numel() > 0,
      "[counted_feed_forward] expected states of {} tokens", branch.rows.place_N.numel());
  const CountedNorm& norm = weights.norm;
  variable_list inputs = {norm.weight,     norm.bias,    weights.up,
                          weights.up_bias, weights.down, weights.down_bias};
  if (branch.score.score_BT.defined()) inputs.push_back(branch.score.score_BT);
  if (!at::GradMode::is_enabled()) return feed_forward(x_BTD, inputs, norm.eps, branch, nullptr);
  return FeedForwardFunction::apply(x_BTD, at::TensorList(inputs), norm.eps, branch);
}

at::Tensor counted_window_branch(const at::Tensor& x, const CountedWindowWeights& weights,
                                 const WindowShape& shape, const CountedBranch& branch) {
  FATHOM_CHECK(x.dim() == 4 && x.size(1) == shape.height && x.size(2) == shape.width && x.numel() > 0 &&
                   branch.drop.dropout == 0,
               "[counted_window_branch] expected maps of {} × {}, and dropout by sample alone", shape.height,
               shape.width);
  const CountedNorm& norm = weights.norm;
  const CountedRows rows = window_rows(branch.rows, shape);
  const auto x_BTD = x.flatten(1, 2);
  variable_list inputs = {norm.weight,    norm.bias,           weights.qkv,
                          weights.output, weights.output_bias, weights.position_HTT};
  if (weights.qkv_bias.defined()) inputs.push_back(weights.qkv_bias);
  if (branch.score.score_BT.defined()) inputs.push_back(branch.score.score_BT);
  if (!at::GradMode::is_enabled())
    return window_branch(x_BTD, weights_of(inputs, branch), norm.eps, shape, rows, branch, nullptr)
        .view_as(x);
  return WindowFunction::apply(x_BTD, at::TensorList(inputs), norm.eps, shape, rows, branch).view_as(x);
}

}  // namespace fathom::kernels
