// N rows, D width, V vocabulary.
#include "train/losses/linear_cross_entropy.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/softmax_cross_entropy.h"

namespace fathom {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// As large as a power of two can be with the gradient by a logit, at most 1, still in FP16.
constexpr double kLogitGradientScale = 32768;

/// The three products of a chunk, of operands in one type.
struct HeadProducts {
  bool narrow;
  const kernels::Products& products;
  at::Tensor weight_VD;

  HeadProducts(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const kernels::LinearTypes& types)
      : narrow(types.products.narrow(hidden_ND)),
        products(types.products),
        weight_VD(narrow ? kernels::half_weight(head_VD, products, types.copies)
                         : kernels::narrowed_weight(head_VD, hidden_ND.scalar_type(), types.copies)) {}

  at::Tensor operand(const at::Tensor& rows_ND) const {
    return narrow ? kernels::saturated_half(rows_ND, products) : rows_ND;
  }
  at::Tensor logits(const at::Tensor& rows_ND) const {
    return narrow ? kernels::wide_product(rows_ND, weight_VD.t()) : at::mm(rows_ND, weight_VD.t());
  }
  /// Room for the gradient by the logits, as an operand: their own, if they are not needed any more.
  at::Tensor room_for_gradient(const at::Tensor& logits_NV) const {
    return narrow ? at::empty_like(logits_NV, logits_NV.options().dtype(at::kHalf)) : logits_NV;
  }
  double gradient_scale() const { return narrow ? kLogitGradientScale : 1; }
  /// Writes the rows' gradient, adds to the head's.
  void add_gradients(const at::Tensor& rows_ND, const at::Tensor& grad_logits_NV, at::Tensor grad_rows_ND,
                     at::Tensor& grad_head_VD) const {
    if (narrow)
      grad_rows_ND.copy_(kernels::wide_product(grad_logits_NV, weight_VD).div_(gradient_scale()));
    else
      at::mm_out(grad_rows_ND, grad_logits_NV, weight_VD);
    // A CPU multiplies BF16 faster than float32.
    if (narrow || grad_head_VD.is_cuda())
      kernels::add_wide_product(grad_head_VD, grad_logits_NV.t(), rows_ND, 1 / gradient_scale());
    else
      grad_head_VD.add_(at::mm(grad_logits_NV.t(), rows_ND));
  }
};

/// Loss of some rows of `hidden`, of which gradients are taken in `grad_rows_ND`, unless that is undefined.
at::Tensor chunk_loss(const HeadProducts& head, const at::Tensor& hidden_ND, const at::Tensor& target_N,
                      const at::Tensor& grad_rows_ND, at::Tensor& grad_head_VD) {
  const at::Tensor rows_ND = head.operand(hidden_ND), logits_NV = head.logits(rows_ND);
  if (!grad_rows_ND.defined()) return kernels::softmax_cross_entropy(logits_NV, target_N).sum();
  const at::Tensor gradient_NV = head.room_for_gradient(logits_NV);
  const at::Tensor loss_N =
      kernels::softmax_cross_entropy(logits_NV, target_N, gradient_NV, head.gradient_scale());
  head.add_gradients(rows_ND, gradient_NV, grad_rows_ND, grad_head_VD);
  return loss_N.sum();
}

/// Even ones, so that no product is small, and of whole tiles of products.
int64_t default_chunk_rows(const at::Tensor& hidden_ND, const at::Tensor& head_VD) {
  const int64_t rows = hidden_ND.size(0), vocabulary = head_VD.size(0);
  if (!hidden_ND.is_cuda()) return std::max<int64_t>(256, (int64_t{32} << 20) / vocabulary);
  constexpr int64_t kMostLogits = int64_t{128} << 20, kTile = 128;
  const int64_t chunks = std::max<int64_t>(1, (rows * vocabulary + kMostLogits - 1) / kMostLogits);
  return ((rows + chunks - 1) / chunks + kTile - 1) / kTile * kTile;
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                            const at::Tensor& target_N, int64_t chunk_rows, const kernels::LinearTypes& types,
                            bool with_gradient) {
    const HeadProducts head(hidden_ND, head_VD, types);
    const at::ScalarType statistics = at::promote_types(hidden_ND.scalar_type(), at::kFloat);
    at::Tensor total = at::zeros({}, hidden_ND.options().dtype(statistics));
    at::Tensor grad_hidden_ND, grad_head_VD;
    if (with_gradient) {
      grad_hidden_ND = at::empty_like(hidden_ND);
      grad_head_VD = at::zeros(head_VD.sizes(), head_VD.options().dtype(statistics));
    }
    for (int64_t start = 0; start < hidden_ND.size(0); start += chunk_rows) {
      const int64_t count = std::min(chunk_rows, hidden_ND.size(0) - start);
      const auto part = [&](const at::Tensor& x) { return x.narrow(0, start, count); };
      total.add_(chunk_loss(head, part(hidden_ND), part(target_N),
                            with_gradient ? part(grad_hidden_ND) : at::Tensor(), grad_head_VD));
    }
    if (with_gradient) context->save_for_backward({grad_hidden_ND, grad_head_VD.to(head_VD.scalar_type())});
    return total;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad_outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& scale = grad_outputs[0];
    return {saved[0] * scale.to(saved[0].scalar_type()),
            saved[1] * scale.to(saved[1].scalar_type()),
            {},
            {},
            {},
            {}};
  }
};

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                const at::Tensor& target_N, int64_t chunk_rows,
                                const kernels::LinearTypes& types) {
  FATHOM_CHECK(hidden_ND.dim() == 2 && head_VD.dim() == 2 && hidden_ND.size(1) == head_VD.size(1),
               "[linear_cross_entropy] expected [N, D] and [V, D]");
  FATHOM_CHECK(
      target_N.dim() == 1 && target_N.size(0) == hidden_ND.size(0) && target_N.scalar_type() == at::kLong,
      "[linear_cross_entropy] expected {} int64 targets", hidden_ND.size(0));
  if (chunk_rows <= 0) chunk_rows = default_chunk_rows(hidden_ND, head_VD);
  const bool with_gradient =
      at::GradMode::is_enabled() && (hidden_ND.requires_grad() || head_VD.requires_grad());
  return LinearCrossEntropy::apply(hidden_ND, head_VD, target_N, chunk_rows, types, with_gradient);
}

}  // namespace fathom
