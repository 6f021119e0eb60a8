// B samples, S of all ranks; R rows, C columns; M captions, L of all ranks; D width.
#include "train/task/pair_targets.h"

#include <torch/torch.h>

#include "nn/temperature.h"

namespace fathom {
namespace {

at::Tensor each_by_number(const at::Tensor& x_RC) {
  return x_RC / x_RC.sum(1, /*keepdim=*/true).clamp_min(1);
}

/// What each sample's picture has of each sample, [S, S]; rows have a sum of 1. A sample that stands in the
/// batch several times has its part divided among them.
at::Tensor picture_parts(const at::Tensor& owner_S, const MixedIn& mixed) {
  const auto part = [&](const at::Tensor& of_S, const at::Tensor& share_S) {
    const at::Tensor same_SS = of_S.unsqueeze(1).eq(owner_S.unsqueeze(0)).to(share_S.scalar_type());
    return each_by_number(same_SS) * share_S.unsqueeze(1);
  };
  return part(owner_S, mixed.share_B) + part(mixed.owner_B, 1 - mixed.share_B);
}

}  // namespace

MixedIn note_mixture(const at::Tensor& share_B, const at::Tensor& partner_B, const at::Tensor& owner_B,
                     const at::Tensor& caption_M) {
  const at::Tensor whole_B = share_B.ge(1);
  const at::Tensor caption_BK = caption_M.view({owner_B.size(0), -1}).index_select(0, partner_B);
  return {.share_B = share_B,
          .owner_B = owner_B.index_select(0, partner_B).masked_fill(whole_B, kNobody),
          .caption_M = caption_BK.masked_fill(whole_B.unsqueeze(1), kNobody).flatten()};
}

void PairTargets::share_among_columns(const at::Tensor& share_R) {
  const at::Tensor share_R1 = share_R.unsqueeze(1);
  const auto share_out = [](PairLabels& labels, const at::Tensor& part_R1) {
    labels.target_RC = each_by_number(labels.positive_RC.to(part_R1.scalar_type())) * part_R1;
  };
  share_out(own, share_R1);
  share_out(mixed_in, 1 - share_R1);
}

void PairTargets::share_among_rows(const at::Tensor& share_C) {
  const at::Tensor own_RC = own.positive_RC * share_C, other_RC = mixed_in.positive_RC * (1 - share_C);
  const at::Tensor sum_R1 = (own_RC + other_RC).sum(1, /*keepdim=*/true).clamp_min(1e-12);
  own.target_RC = own_RC / sum_R1;
  mixed_in.target_RC = other_RC / sum_R1;
}

at::Tensor PairTargets::info_nce(const at::Tensor& logits_RC, double label_smoothing,
                                 const SoftShare& soft) const {
  at::Tensor loss = fathom::info_nce(logits_RC, own, label_smoothing);
  if (mixed_in.positive_RC.defined()) loss = loss + fathom::info_nce(logits_RC, mixed_in, label_smoothing);
  if (!soft_RC.defined()) return loss;
  const double squared = soft.temperature * soft.temperature;
  const at::Tensor softened_RC = soft.temperature == 1 ? logits_RC : logits_RC / soft.temperature;
  return (1 - soft.share) * loss + soft.share * squared * soft_cross_entropy(softened_RC, soft_RC);
}

at::Tensor sample_means(const at::Tensor& embedding_RD, int64_t samples) {
  return unit_length(embedding_RD.view({samples, -1, embedding_RD.size(1)}).mean(1));
}

SoftTargets similar_texts(const at::Tensor& text_LD, const at::Tensor& owner_S, const MixedIn& mixed,
                          double temperature) {
  const at::Tensor mean_SD = sample_means(text_LD.detach(), owner_S.size(0));
  const at::Tensor similar_SS = (at::mm(mean_SD, mean_SD.t()) / temperature).softmax(1);
  if (!mixed.defined()) return {similar_SS, similar_SS};
  const at::Tensor part_SS = picture_parts(owner_S, mixed).to(similar_SS.scalar_type());
  const at::Tensor text_SS = at::mm(similar_SS, part_SS.t());
  return {at::mm(part_SS, similar_SS), text_SS / text_SS.sum(1, /*keepdim=*/true)};
}

at::Tensor target_of_rows(const at::Tensor& target_BS, int64_t row_each, int64_t column_each) {
  return target_BS.repeat_interleave(row_each, 0).repeat_interleave(column_each, 1) /
         static_cast<double>(column_each);
}

}  // namespace fathom
