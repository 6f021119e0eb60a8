// R rows, C columns, T texts (in `caption_ids`: tokens), I images, K captions an image, B batch.
#include "train/losses/contrastive_losses.h"

#include <torch/torch.h>

#include <limits>

#include "base/error.h"

namespace fathom {
namespace {

void check(const at::Tensor& logits_RC, const PairLabels& labels, const char* op) {
  FATHOM_CHECK(logits_RC.dim() == 2 && labels.positive_RC.sizes() == logits_RC.sizes() &&
                   labels.negative_RC.sizes() == logits_RC.sizes(),
               "[{}] expected labels of the logits' shape", op);
}

/// Odd multipliers, one a place, from Knuth's multiplicative hashing.
at::Tensor place_weights(int64_t places, const at::TensorOptions& options) {
  const at::Tensor place = at::arange(1, places + 1, options);
  return (place * int64_t{0x9E3779B97F4A7C1}).bitwise_or(1) *
         (place * int64_t{0x2545F4914F6CDD1D}).bitwise_or(1);
}

}  // namespace

PairLabels label_pairs(const at::Tensor& owner_T, const at::Tensor& owner_I, const at::Tensor& caption_T,
                       const at::Tensor& caption_IK) {
  const at::Tensor positive_TI = owner_T.unsqueeze(1).eq(owner_I.unsqueeze(0));
  if (!caption_T.defined()) return {positive_TI, positive_TI.logical_not()};
  const at::Tensor same_caption_TI = caption_T.view({-1, 1, 1}).eq(caption_IK.unsqueeze(0)).any(2);
  return {positive_TI, positive_TI.logical_or(same_caption_TI).logical_not_()};
}

PairLabels transpose(const PairLabels& labels) {
  FATHOM_CHECK(!labels.log_weight_RC.defined() && !labels.target_RC.defined(),
               "[transpose] weights and targets are of rows");
  return {labels.positive_RC.t(), labels.negative_RC.t()};
}

at::Tensor caption_ids(const at::Tensor& tokens_BT, const at::Tensor& length_B) {
  const int64_t places = tokens_BT.size(1);
  at::Tensor mixed_BT = (tokens_BT + 1) * place_weights(places, tokens_BT.options());
  if (length_B.defined()) {
    const at::Tensor place_T = at::arange(places, tokens_BT.options());
    mixed_BT = mixed_BT.masked_fill(place_T.unsqueeze(0).ge(length_B.unsqueeze(1)), 0);
  }
  return mixed_BT.bitwise_xor(mixed_BT.bitwise_right_shift(29)).sum(1);
}

at::Tensor info_nce(const at::Tensor& logits_RC, const PairLabels& labels, double label_smoothing) {
  check(logits_RC, labels, "info_nce");
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  const at::Tensor weighed_RC = labels.log_weight_RC.defined() ? logits_RC + labels.log_weight_RC : logits_RC;
  const at::Tensor negatives_R =
      at::logsumexp(weighed_RC.masked_fill(labels.negative_RC.logical_not(), kNothing), 1);
  const at::Tensor positive_RC = labels.positive_RC.to(logits_RC.scalar_type());
  const at::Tensor weight_RC = labels.target_RC.defined()
                                   ? labels.target_RC.to(logits_RC.scalar_type())
                                   : positive_RC / positive_RC.sum(1, /*keepdim=*/true).clamp_min(1);
  const at::Tensor partition_RC = at::logaddexp(logits_RC, negatives_R.unsqueeze(1));
  if (label_smoothing == 0) return ((partition_RC - logits_RC) * weight_RC).sum();
  const at::Tensor candidate_RC = positive_RC + labels.negative_RC.to(logits_RC.scalar_type());
  const at::Tensor mean_logit_R = (logits_RC * candidate_RC).sum(1) / candidate_RC.sum(1).clamp_min(1);
  const at::Tensor target_RC =
      logits_RC * (1 - label_smoothing) + mean_logit_R.unsqueeze(1) * label_smoothing;
  return ((partition_RC - target_RC) * weight_RC).sum();
}

at::Tensor soft_cross_entropy(const at::Tensor& logits_RC, const at::Tensor& target_RC) {
  return -(logits_RC.log_softmax(1) * target_RC.to(logits_RC.scalar_type())).sum();
}

at::Tensor pairwise_sigmoid(const at::Tensor& logits_RC, const PairLabels& labels) {
  check(logits_RC, labels, "pairwise_sigmoid");
  const at::ScalarType type = logits_RC.scalar_type();
  const at::Tensor sign_RC = labels.positive_RC.to(type) - labels.negative_RC.to(type);
  at::Tensor weight_RC = sign_RC.abs();
  if (labels.log_weight_RC.defined())
    weight_RC = at::where(labels.negative_RC, labels.log_weight_RC.exp().to(type), weight_RC);
  return -(at::log_sigmoid(logits_RC * sign_RC) * weight_RC).sum();
}

void weigh_negatives(PairLabels& labels, const at::Tensor& similarity_RC, double sharpness) {
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  const at::Tensor raw_RC = similarity_RC * sharpness;
  const at::Tensor count_R1 =
      labels.negative_RC.sum(1, /*keepdim=*/true).clamp_min(1).to(raw_RC.scalar_type());
  const at::Tensor log_mean_R1 =
      at::logsumexp(raw_RC.masked_fill(labels.negative_RC.logical_not(), kNothing), {1}, true) -
      count_R1.log();
  labels.log_weight_RC = (raw_RC - log_mean_R1).masked_fill(labels.negative_RC.logical_not(), 0);
}

at::Tensor symmetric_divergence(const at::Tensor& first_RC, const at::Tensor& second_RC,
                                const at::Tensor& keep_RC) {
  constexpr double kFar = -1e5;  // finite, so that differences of logarithms stay numbers
  const at::Tensor leave_RC = keep_RC.logical_not();
  const at::Tensor first = first_RC.masked_fill(leave_RC, kFar).log_softmax(1);
  const at::Tensor second = second_RC.masked_fill(leave_RC, kFar).log_softmax(1);
  const at::Tensor term_RC = (first.exp() - second.exp()) * (first - second);
  return 0.5 * term_RC.masked_fill(leave_RC, 0).sum();
}

}  // namespace fathom
