// N rows, D width, V vocabulary.
#include "train/losses/linear_cross_entropy.h"

#include <torch/csrc/autograd/graph_task.h>
#include <torch/torch.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "kernels/scale.h"
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
  void write_rows_gradient(const at::Tensor& grad_logits_NV, at::Tensor grad_rows_ND) const {
    if (narrow)
      grad_rows_ND.copy_(kernels::wide_product(grad_logits_NV, weight_VD).div_(gradient_scale()));
    else
      at::mm_out(grad_rows_ND, grad_logits_NV, weight_VD);
  }
  /// `begins`: what lies in `sum_VD` means nothing.
  void add_head_gradient(const at::Tensor& grad_logits_NV, const at::Tensor& rows_ND, at::Tensor& sum_VD,
                         bool begins) const {
    const at::Tensor grad_VN = grad_logits_NV.t();
    if (begins && !narrow && sum_VD.is_cuda()) return kernels::write_wide_product(sum_VD, grad_VN, rows_ND);
    if (begins) sum_VD.zero_();
    // A CPU multiplies BF16 faster than float32.
    if (narrow || sum_VD.is_cuda())
      kernels::add_wide_product(sum_VD, grad_VN, rows_ND, 1 / gradient_scale());
    else
      sum_VD.add_(at::mm(grad_VN, rows_ND));
  }
};

/// What a loss learns while it is computed; undefined where nothing is asked for.
struct Gradients {
  at::Tensor hidden_ND, head_VD;
  bool has_head = false;  ///< something has been written there
};

/// Where the gradient by the logits is rounded to FP16 it stays as large as it can be.
bool divides_by_logit(const HeadProducts& head, const at::Tensor& hidden_ND) {
  return !head.narrow && hidden_ND.scalar_type() != at::kHalf;
}

/// Loss of the rows of `hidden_ND` from `start` on, and what `gradients` asks for.
at::Tensor chunk_loss(const HeadProducts& head, const at::Tensor& hidden_ND, const at::Tensor& target_N,
                      int64_t start, const at::Tensor& divisor, Gradients& gradients) {
  const at::Tensor rows_ND = head.operand(hidden_ND), logits_NV = head.logits(rows_ND);
  if (!gradients.hidden_ND.defined()) return kernels::softmax_cross_entropy(logits_NV, target_N).sum();
  const at::Tensor by_logit_NV = head.room_for_gradient(logits_NV);
  const at::Tensor loss_N =
      kernels::softmax_cross_entropy(logits_NV, target_N, by_logit_NV, head.gradient_scale(), divisor);
  head.write_rows_gradient(by_logit_NV, gradients.hidden_ND.narrow(0, start, hidden_ND.size(0)));
  if (gradients.head_VD.defined()) {
    head.add_head_gradient(by_logit_NV, rows_ND, gradients.head_VD, !gradients.has_head);
    gradients.has_head = true;
  }
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

/// Its place, and the tensor in which it is summed up, which may be that.
struct HeadRoom {
  at::Tensor place_VD, sum_VD;

  HeadRoom(const at::Tensor& head_VD, at::ScalarType statistics, GradientRooms* rooms) {
    if (rooms != nullptr) place_VD = rooms->take(head_VD);
    const bool fits = place_VD.defined() && place_VD.scalar_type() == statistics;
    sum_VD = fits ? place_VD : at::empty(head_VD.sizes(), head_VD.options().dtype(statistics));
  }
  /// The gradient, in the head's type or in its place. With a version of its own: others write into memory
  /// around the place, which is no change of it.
  at::Tensor result(at::ScalarType type) {
    if (!place_VD.defined()) return sum_VD.to(type);
    if (!place_VD.is_same(sum_VD)) place_VD.copy_(sum_VD);
    return place_VD.variable_data();
  }
};

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                            const at::Tensor& target_N, const LinearCrossEntropyOptions& options,
                            bool with_gradient) {
    const HeadProducts head(hidden_ND, head_VD, options.types);
    const at::ScalarType statistics = at::promote_types(hidden_ND.scalar_type(), at::kFloat);
    const at::Tensor divisor = options.divisor.defined() ? options.divisor.to(statistics) : at::Tensor();
    const bool divides = divides_by_logit(head, hidden_ND);
    at::Tensor total = at::zeros({}, hidden_ND.options().dtype(statistics));
    Gradients gradients;
    std::optional<HeadRoom> room;
    if (with_gradient) gradients.hidden_ND = at::empty_like(hidden_ND);
    if (with_gradient && head_VD.requires_grad())
      gradients.head_VD = room.emplace(head_VD, statistics, options.types.rooms).sum_VD;
    for (int64_t start = 0; start < hidden_ND.size(0); start += options.chunk_rows) {
      const int64_t count = std::min(options.chunk_rows, hidden_ND.size(0) - start);
      total.add_(chunk_loss(head, hidden_ND.narrow(0, start, count), target_N.narrow(0, start, count), start,
                            divides ? divisor : at::Tensor(), gradients));
    }
    if (room && !gradients.has_head) gradients.head_VD.zero_();
    if (with_gradient)
      context->save_for_backward({gradients.hidden_ND,
                                  room ? room->result(head_VD.scalar_type()) : at::Tensor(),
                                  divides ? at::Tensor() : divisor});
    return divisor.defined() ? total.div_(divisor) : total;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grad_outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &divisor = saved[2],
                     scale = divisor.defined() ? grad_outputs[0] / divisor : grad_outputs[0];
    const bool again = torch::autograd::get_current_graph_task_keep_graph();
    variable_list gradients(5);
    for (size_t i = 0; i < 2; ++i) {
      if (!saved[i].defined()) continue;
      // A tensor of its own, so that autograd finds nobody else holding it.
      gradients[i] = again ? saved[i].clone() : saved[i].variable_data();
      kernels::scale_(gradients[i], scale);
    }
    return gradients;
  }
};

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                const at::Tensor& target_N, const LinearCrossEntropyOptions& options) {
  FATHOM_CHECK(hidden_ND.dim() == 2 && head_VD.dim() == 2 && hidden_ND.size(1) == head_VD.size(1),
               "[linear_cross_entropy] expected [N, D] and [V, D]");
  FATHOM_CHECK(
      target_N.dim() == 1 && target_N.size(0) == hidden_ND.size(0) && target_N.scalar_type() == at::kLong,
      "[linear_cross_entropy] expected {} int64 targets", hidden_ND.size(0));
  FATHOM_CHECK(!options.divisor.defined() ||
                   (options.divisor.dim() == 0 && options.divisor.device() == hidden_ND.device()),
               "[linear_cross_entropy] expected a scalar divisor on {}", hidden_ND.device().str());
  LinearCrossEntropyOptions chosen = options;
  if (chosen.chunk_rows <= 0) chosen.chunk_rows = default_chunk_rows(hidden_ND, head_VD);
  const bool with_gradient =
      at::GradMode::is_enabled() && (hidden_ND.requires_grad() || head_VD.requires_grad());
  return LinearCrossEntropy::apply(hidden_ND, head_VD, target_N, chosen, with_gradient);
}

}  // namespace fathom
