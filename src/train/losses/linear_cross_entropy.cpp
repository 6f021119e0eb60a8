// N rows, D width, V vocabulary.
#include "train/losses/linear_cross_entropy.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

namespace fathom {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Loss of some rows, and its gradient by their logits, in the type of the products.
struct ChunkLoss {
  at::Tensor sum;
  at::Tensor grad_logits_NV;
};

ChunkLoss chunk_loss(const at::Tensor& logits_NV, const at::Tensor& target_N, bool with_gradient) {
  const at::ScalarType statistics = at::promote_types(logits_NV.scalar_type(), at::kFloat);
  const at::Tensor log_probability_NV = at::log_softmax(logits_NV, 1, statistics);
  const at::Tensor ignored_N1 = target_N.lt(0).unsqueeze(1);
  const at::Tensor index_N1 = target_N.clamp_min(0).unsqueeze(1);
  ChunkLoss loss{log_probability_NV.gather(1, index_N1).masked_fill(ignored_N1, 0).sum().neg(), {}};
  if (!with_gradient) return loss;
  at::Tensor grad_NV = log_probability_NV.exp_();
  grad_NV.scatter_add_(1, index_N1, at::full_like(index_N1, -1, grad_NV.options()));
  grad_NV.masked_fill_(ignored_N1, 0);
  loss.grad_logits_NV = grad_NV.to(logits_NV.scalar_type());
  return loss;
}

/// As large as a power of two can be with the gradient by a logit, at most 1, still in FP16.
constexpr double kLogitGradientScale = 32768;

/// The three products of a chunk, of operands in one type.
struct HeadProducts {
  bool narrow;
  const kernels::Products& products;
  at::Tensor weight_VD;

  HeadProducts(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const kernels::Products& how)
      : narrow(how.narrow(hidden_ND)),
        products(how),
        weight_VD(narrow ? kernels::saturated_half(head_VD, how) : head_VD.to(hidden_ND.scalar_type())) {}

  at::Tensor operand(const at::Tensor& rows_ND) const {
    return narrow ? kernels::saturated_half(rows_ND, products) : rows_ND;
  }
  at::Tensor logits(const at::Tensor& rows_ND) const {
    return narrow ? kernels::wide_product(rows_ND, weight_VD.t()) : at::mm(rows_ND, weight_VD.t());
  }
  /// Writes the rows' gradient, adds to the head's.
  void add_gradients(const at::Tensor& rows_ND, const at::Tensor& grad_logits_NV, at::Tensor grad_rows_ND,
                     at::Tensor& grad_head_VD) const {
    if (!narrow) {
      at::mm_out(grad_rows_ND, grad_logits_NV, weight_VD);
      grad_head_VD.add_(at::mm(grad_logits_NV.t(), rows_ND));
      return;
    }
    const at::Tensor half_NV = (grad_logits_NV * kLogitGradientScale).to(at::kHalf);
    grad_rows_ND.copy_(kernels::wide_product(half_NV, weight_VD).div_(kLogitGradientScale));
    grad_head_VD.add_(kernels::wide_product(half_NV.t(), rows_ND), 1 / kLogitGradientScale);
  }
};

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                            const at::Tensor& target_N, int64_t chunk_rows, const kernels::Products& products,
                            bool with_gradient) {
    const HeadProducts head(hidden_ND, head_VD, products);
    const at::ScalarType statistics = at::promote_types(hidden_ND.scalar_type(), at::kFloat);
    at::Tensor total = at::zeros({}, hidden_ND.options().dtype(statistics));
    at::Tensor grad_hidden_ND, grad_head_VD;
    if (with_gradient) {
      grad_hidden_ND = at::empty_like(hidden_ND);
      grad_head_VD = at::zeros(head_VD.sizes(), head_VD.options().dtype(statistics));
    }
    for (int64_t start = 0; start < hidden_ND.size(0); start += chunk_rows) {
      const int64_t count = std::min(chunk_rows, hidden_ND.size(0) - start);
      const at::Tensor rows_ND = head.operand(hidden_ND.narrow(0, start, count));
      const ChunkLoss loss =
          chunk_loss(head.logits(rows_ND), target_N.narrow(0, start, count), with_gradient);
      total.add_(loss.sum);
      if (with_gradient)
        head.add_gradients(rows_ND, loss.grad_logits_NV, grad_hidden_ND.narrow(0, start, count),
                           grad_head_VD);
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
                                const kernels::Products& products) {
  FATHOM_CHECK(hidden_ND.dim() == 2 && head_VD.dim() == 2 && hidden_ND.size(1) == head_VD.size(1),
               "[linear_cross_entropy] expected [N, D] and [V, D]");
  FATHOM_CHECK(
      target_N.dim() == 1 && target_N.size(0) == hidden_ND.size(0) && target_N.scalar_type() == at::kLong,
      "[linear_cross_entropy] expected {} int64 targets", hidden_ND.size(0));
  if (chunk_rows <= 0) chunk_rows = std::max<int64_t>(256, (int64_t{32} << 20) / head_VD.size(0));
  const bool with_gradient =
      at::GradMode::is_enabled() && (hidden_ND.requires_grad() || head_VD.requires_grad());
  return LinearCrossEntropy::apply(hidden_ND, head_VD, target_N, chunk_rows, products, with_gradient);
}

}  // namespace fathom
