// B samples of this rank and S of all; R rows of one modality (this rank's), C of another (all ranks'); M
// texts and V views of this rank, N views and L texts of all; D width.
#include "train/task/contrastive_objective.h"

#include <torch/torch.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "distributed/autograd_collectives.h"
#include "nn/grad_reversal.h"

namespace fathom {
namespace {

/// `each` copies of every sample's value; undefined stays so.
at::Tensor of_rows(const at::Tensor& value_B, int64_t each) {
  return value_B.defined() ? value_B.repeat_interleave(each) : value_B;
}

/// Both, or undefined where neither is a matter.
at::Tensor both(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() ? a.logical_and(b) : a;
}

/// Takes pairs of which either side is missing out of the labels.
void leave_out(PairLabels& labels, const at::Tensor& row_R, const at::Tensor& column_C) {
  if (!row_R.defined()) return;
  const at::Tensor there_RC = row_R.unsqueeze(1).logical_and(column_C.unsqueeze(0));
  labels.positive_RC = labels.positive_RC.logical_and(there_RC);
  labels.negative_RC = labels.negative_RC.logical_and(there_RC);
}

/// `each` rows of the samples of `present_S`, or of all `samples`.
RowCount count_rows(const at::Tensor& present_S, int64_t samples, int64_t each) {
  RowCount count{.known = static_cast<double>(samples * each)};
  if (present_S.defined()) count.counted = (present_S.sum() * each).clamp_min(1);
  return count;
}

/// This rank's share of the mean over the views of samples of `present_S`, or of all `samples`. Views of
/// other samples have losses of 0.
at::Tensor mean_of_views(const at::Tensor& loss_V, const ContrastiveRows& local, const at::Tensor& present_S,
                         int64_t samples) {
  return count_rows(present_S, samples, loss_V.size(0) / local.owner_B.size(0)).divide(loss_V.sum());
}

}  // namespace

std::vector<at::Tensor*> ContrastiveRows::learned() {
  std::vector<at::Tensor*> tensors;
  for (ModalityRows& rows : modalities)
    for (at::Tensor PairSide::*member : {&PairSide::whole_ND, &PairSide::key_NSD, &PairSide::value_NSD})
      tensors.push_back(&(rows.side.*member));
  tensors.insert(tensors.end(), {&view_VD, &word_loss_V, &location_loss_V, &taught_loss_B});
  return tensors;
}

ContrastiveRows ContrastiveRows::join(const std::vector<ContrastiveRows>& parts) {
  const auto cat = [&](const auto& member) {
    std::vector<at::Tensor> tensors;
    for (const ContrastiveRows& part : parts)
      if (const at::Tensor& tensor = member(part); tensor.defined()) tensors.push_back(tensor);
    return tensors.empty() ? at::Tensor() : at::cat(tensors);
  };
  ContrastiveRows whole{.view_VD = cat([](const auto& part) { return part.view_VD; }),
                        .word_loss_V = cat([](const auto& part) { return part.word_loss_V; }),
                        .location_loss_V = cat([](const auto& part) { return part.location_loss_V; }),
                        .taught_loss_B = cat([](const auto& part) { return part.taught_loss_B; }),
                        .owner_B = cat([](const auto& part) { return part.owner_B; }),
                        .caption_M = cat([](const auto& part) { return part.caption_M; }),
                        .mixed = {.share_B = cat([](const auto& part) { return part.mixed.share_B; }),
                                  .owner_B = cat([](const auto& part) { return part.mixed.owner_B; }),
                                  .caption_M = cat([](const auto& part) { return part.mixed.caption_M; })}};
  for (size_t m = 0; m < parts.front().modalities.size(); ++m) {
    std::vector<PairSide> sides;
    for (const ContrastiveRows& part : parts) sides.push_back(part.modalities[m].side);
    whole.modalities.push_back(
        {.modality = parts.front().modalities[m].modality,
         .side = join_sides(sides),
         .present_B = cat([m](const auto& part) { return part.modalities[m].present_B; })});
  }
  for (size_t k = 0; k < parts.front().taught.size(); ++k)
    whole.taught.push_back({.image_ND = cat([k](const auto& part) { return part.taught[k].image_ND; }),
                            .text_MD = cat([k](const auto& part) { return part.taught[k].text_MD; })});
  return whole;
}

/// What a rank compares its own with: embeddings alone.
struct ContrastiveObjective::Gathered : ContrastiveRows {
  int64_t samples() const { return owner_B.size(0); }
};

ContrastiveObjective::Gathered ContrastiveObjective::gather(const ContrastiveRows& local,
                                                            Collective& collective) const {
  Gathered all;
  for (const ModalityRows& rows : local.modalities) {
    ModalityRows& everywhere = all.modalities.emplace_back();
    everywhere.modality = rows.modality;
    everywhere.side.whole_ND = all_gather_with_gradient(collective, rows.side.whole_ND);
    if (rows.present_B.defined())
      everywhere.present_B = collective.all_gather(rows.present_B.to(at::kLong)).to(at::kBool);
  }
  all.owner_B = collective.all_gather(local.owner_B);
  all.caption_M = collective.all_gather(local.caption_M);
  if (local.mixed.defined())
    all.mixed = {.share_B = collective.all_gather(local.mixed.share_B),
                 .owner_B = collective.all_gather(local.mixed.owner_B),
                 .caption_M = collective.all_gather(local.mixed.caption_M)};
  if (setup_.config.distillation.share == 0) return all;
  for (const auto& [image_ND, text_MD] : local.taught)
    all.taught.push_back({collective.all_gather(image_ND), collective.all_gather(text_MD)});
  return all;
}

std::vector<ContrastiveObjective::Kind> ContrastiveObjective::kinds() const {
  const PairWeights& weights = setup_.config.pairs;
  if (!setup_.model->config().audio_tower) return {{Modality::kImage, Modality::kText, 1.0}};
  const double sum = weights.image_text + weights.image_sound + weights.text_sound;
  std::vector<Kind> kinds{{Modality::kImage, Modality::kText, weights.image_text / sum},
                          {Modality::kImage, Modality::kSound, weights.image_sound / sum},
                          {Modality::kText, Modality::kSound, weights.text_sound / sum}};
  std::erase_if(kinds, [](const Kind& kind) { return kind.weight == 0; });
  return kinds;
}

/// Rows of one modality against columns of another: which are of one sample, and which are to be kept apart.
/// Samples with an equal caption are not kept apart where texts are compared.
PairLabels ContrastiveObjective::label(const ContrastiveRows& rows, const ContrastiveRows& columns,
                                       Modality row, Modality column) const {
  const auto owner = [](const ContrastiveRows& side, Modality modality) {
    return of_rows(side.owner_B, side.of(modality).rows_each(side.owner_B.size(0)));
  };
  const auto labels = [&](const ContrastiveRows& texts, const ContrastiveRows& others, Modality other) {
    const int64_t captions = texts.of(Modality::kText).rows_each(texts.owner_B.size(0));
    const int64_t each = others.of(other).rows_each(others.owner_B.size(0));
    return label_pairs(owner(texts, Modality::kText), owner(others, other), texts.caption_M,
                       others.caption_M.view({-1, captions}).repeat_interleave(each, 0));
  };
  const bool compares_captions = setup_.config.match_equal_captions;
  if (compares_captions && row == Modality::kText) return labels(rows, columns, column);
  if (compares_captions && column == Modality::kText) return transpose(labels(columns, rows, row));
  return label_pairs(owner(rows, row), owner(columns, column));
}

/// Targets of mixed pictures and of texts against them.
void ContrastiveObjective::share_out(Labels& labels, const ContrastiveRows& local, const Gathered& all,
                                     const Kind& kind) const {
  const auto by_what_is_mixed_in = [](const ContrastiveRows& rows) {
    ContrastiveRows others = rows;
    others.owner_B = rows.mixed.owner_B;
    others.caption_M = rows.mixed.caption_M;
    return others;
  };
  const int64_t views = all.of(kind.first).rows_each(all.samples());
  labels.forward.mixed_in = label(by_what_is_mixed_in(local), all, kind.first, kind.second);
  labels.forward.share_among_columns(of_rows(local.mixed.share_B, views));
  labels.backward.mixed_in = label(local, by_what_is_mixed_in(all), kind.second, kind.first);
  labels.backward.share_among_rows(of_rows(all.mixed.share_B, views));
}

void ContrastiveObjective::soften(Labels& labels, const Gathered& all, const Kind& kind,
                                  Collective& collective) const {
  const int64_t own = all.samples() / collective.size();
  const int64_t each_first = all.of(kind.first).rows_each(all.samples()),
                each_second = all.of(kind.second).rows_each(all.samples());
  const SoftTargets targets = similar_texts(all.of(Modality::kText).side.whole_ND, all.owner_B, all.mixed,
                                            setup_.config.soft_temperature);
  const auto of_this_rank = [&](const at::Tensor& x_SS) {
    return x_SS.narrow(0, collective.rank() * own, own);
  };
  labels.forward.soft_RC = target_of_rows(of_this_rank(targets.picture_SS), each_first, each_second);
  labels.backward.soft_RC = target_of_rows(of_this_rank(targets.text_SS), each_second, each_first);
}

ContrastiveObjective::Labels ContrastiveObjective::label(const ContrastiveRows& local, const Gathered& all,
                                                         const Kind& kind, Collective& collective) const {
  const int64_t each_first = all.of(kind.first).rows_each(all.samples()),
                each_second = all.of(kind.second).rows_each(all.samples());
  const at::Tensor present_S = both(all.of(kind.first).present_B, all.of(kind.second).present_B);
  Labels labels{.forward = {.own = label(local, all, kind.first, kind.second)},
                .backward = {.own = label(local, all, kind.second, kind.first)},
                .first = count_rows(present_S, all.samples(), each_first),
                .second = count_rows(present_S, all.samples(), each_second)};
  leave_out(labels.forward.own, of_rows(local.of(kind.first).present_B, each_first),
            of_rows(all.of(kind.second).present_B, each_second));
  leave_out(labels.backward.own, of_rows(local.of(kind.second).present_B, each_second),
            of_rows(all.of(kind.first).present_B, each_first));
  if (setup_.hard_negatives) {
    setup_.hard_negatives->apply(labels.forward.own, of_rows(local.owner_B, each_first),
                                 of_rows(all.owner_B, each_second));
    setup_.hard_negatives->apply(labels.backward.own, of_rows(local.owner_B, each_second),
                                 of_rows(all.owner_B, each_first));
  }
  if (local.mixed.defined()) share_out(labels, local, all, kind);
  if (setup_.config.soft_targets > 0) soften(labels, all, kind, collective);
  if (setup_.teachers && setup_.config.distillation.share > 0) {
    const double temperature = setup_.config.distillation.temperature;
    const auto picture = &TaughtRows::image_ND, text = &TaughtRows::text_MD;
    labels.forward.soft_RC = setup_.teachers->judge(local.taught, picture, all.taught, text, temperature);
    labels.backward.soft_RC = setup_.teachers->judge(local.taught, text, all.taught, picture, temperature);
  }
  return labels;
}

SoftShare ContrastiveObjective::soft_share() const {
  const DistillationConfig& distillation = setup_.config.distillation;
  if (setup_.teachers) return {.share = distillation.share, .temperature = distillation.temperature};
  return {.share = setup_.config.soft_targets};
}

at::Tensor ContrastiveObjective::pair_loss(const Similarities& similarities, const Labels& labels,
                                           const Calibration& calibration) const {
  const auto loss = [&](const at::Tensor& similarity_RC, const PairTargets& targets) {
    at::Tensor logits_RC = similarity_RC * calibration.scale;
    if (calibration.bias.defined()) logits_RC = logits_RC + calibration.bias;
    if (setup_.config.loss == ContrastiveLoss::kSigmoid) return pairwise_sigmoid(logits_RC, targets.own);
    return targets.info_nce(logits_RC, setup_.config.label_smoothing, soft_share());
  };
  const at::Tensor forward = labels.first.divide(loss(similarities.forward, labels.forward));
  if (setup_.config.loss == ContrastiveLoss::kSigmoid) return forward;
  return 0.5 * (forward + labels.second.divide(loss(similarities.backward, labels.backward)));
}

at::Tensor ContrastiveObjective::global_loss(const ContrastiveRows& local, const Gathered& all,
                                             const Kind& kind, const Labels& labels) const {
  const auto whole = [](const ContrastiveRows& rows, Modality modality) {
    return rows.of(modality).side.whole_ND;
  };
  const Similarities similarities{.forward = at::mm(whole(local, kind.first), whole(all, kind.second).t()),
                                  .backward = at::mm(whole(local, kind.second), whole(all, kind.first).t())};
  return pair_loss(similarities, labels, {setup_.model->logit_scale(), setup_.model->logit_bias()});
}

/// Own texts with all pictures; then every rank hears of all scores. A pair is scored once, on the rank of
/// its text, and of the towers' parts only those of pictures travel, whose number is the same everywhere.
ContrastiveObjective::Similarities ContrastiveObjective::region_similarities(const ContrastiveRows& local,
                                                                             const Gathered& all,
                                                                             Collective& collective) {
  const PairSide& own = local.of(Modality::kImage).side;
  PairSide image{.whole_ND = all.of(Modality::kImage).side.whole_ND,
                 .key_NSD = all_gather_with_gradient(collective, own.key_NSD)};
  if (own.value_NSD.defined()) image.value_NSD = all_gather_with_gradient(collective, own.value_NSD);
  const at::Tensor score_MN = pair_scores(local.of(Modality::kText).side, image);
  const at::Tensor score_LN = all_gather_with_gradient(collective, score_MN);
  const int64_t views = own.whole_ND.size(0);
  return {.forward = score_LN.narrow(1, collective.rank() * views, views).t(), .backward = score_MN};
}

at::Tensor ContrastiveObjective::self_loss(const Siblings& siblings, const ContrastiveRows& local,
                                           Collective& collective) const {
  const auto& [modality, own_RD, all_ND] = siblings;
  const int64_t rows = own_RD.size(0);
  const int64_t each = rows / local.owner_B.size(0);
  const at::Tensor owner_R = of_rows(local.owner_B, each);
  const at::Tensor owner_N = collective.all_gather(owner_R);
  const at::Tensor place_R = at::arange(rows, owner_R.options()) + rows * collective.rank();
  const at::Tensor itself_RN = place_R.unsqueeze(1) == at::arange(all_ND.size(0), owner_R.options());
  PairLabels labels = label_pairs(owner_R, owner_N);
  labels.positive_RC = labels.positive_RC & ~itself_RN;
  if (modality == Modality::kText && setup_.config.match_equal_captions)
    labels.negative_RC =
        labels.negative_RC & local.caption_M.unsqueeze(1).ne(collective.all_gather(local.caption_M));
  if (modality == Modality::kImage && local.mixed.defined()) {
    // Two pictures mixed with each other hold the same two samples.
    const at::Tensor other_R = of_rows(local.mixed.owner_B, each), other_N = collective.all_gather(other_R);
    const at::Tensor akin_RN = (other_R.unsqueeze(1) == owner_N) | (owner_R.unsqueeze(1) == other_N);
    labels.negative_RC = labels.negative_RC & ~akin_RN;
  }
  RowCount count{.known = static_cast<double>(all_ND.size(0))};
  if (const at::Tensor& present_B = local.of(modality).present_B; present_B.defined()) {
    const at::Tensor present_S = collective.all_gather(present_B.to(at::kLong)).to(at::kBool);
    leave_out(labels, of_rows(present_B, each), of_rows(present_S, each));
    count = count_rows(present_S, present_S.size(0), each);
  }
  const at::Tensor logits_RN = at::mm(own_RD, all_ND.t()) / setup_.config.self_temperature;
  return count.divide(info_nce(logits_RN, labels));
}

/// Each sample's embedding in one modality among all of that modality, against the same of another modality.
at::Tensor ContrastiveObjective::consistency_loss(const ContrastiveRows& local, const Gathered& all,
                                                  const Kind& kind, Collective& collective) const {
  const int64_t samples = local.owner_B.size(0);
  const at::Tensor scale = setup_.model->logit_scale().detach();
  const auto logits = [&](Modality modality) {
    const at::Tensor mean_SD = sample_means(all.of(modality).side.whole_ND, all.samples());
    return at::mm(mean_SD.narrow(0, collective.rank() * samples, samples), mean_SD.t()) * scale;
  };
  at::Tensor other_BS = local.owner_B.unsqueeze(1).ne(all.owner_B.unsqueeze(0));
  const at::Tensor present_S = both(all.of(kind.first).present_B, all.of(kind.second).present_B);
  if (present_S.defined()) {
    const at::Tensor own_B = present_S.narrow(0, collective.rank() * samples, samples);
    other_BS = other_BS.logical_and(own_B.unsqueeze(1)).logical_and(present_S.unsqueeze(0));
  }
  return count_rows(present_S, all.samples(), 1)
      .divide(symmetric_divergence(logits(kind.first), logits(kind.second), other_BS));
}

at::Tensor ContrastiveObjective::adversarial_loss(const ContrastiveRows& local, const Gathered& all,
                                                  const StepContext& step) const {
  std::vector<ModalityDiscriminatorImpl::Part> parts;
  for (const ModalityRows& rows : local.modalities) {
    const ModalityRows& everywhere = all.of(rows.modality);
    const int64_t each = everywhere.rows_each(all.samples());
    parts.push_back({.embedding_ND = rows.side.whole_ND,
                     .present_N = of_rows(rows.present_B, each),
                     .count = count_rows(everywhere.present_B, all.samples(), each)});
  }
  return setup_.discriminator.ptr()->adversarial_loss(parts, reversal_strength(step.progress));
}

at::Tensor ContrastiveObjective::loss(const ContrastiveRows& local, const StepContext& step) const {
  Collective& collective = step.collective;
  const ContrastiveConfig& config = setup_.config;
  const Gathered all = gather(local, collective);
  const ModalAttention region = setup_.model->region();
  at::Tensor loss;
  const auto add = [&](const at::Tensor& part) { loss = loss.defined() ? loss + part : part; };
  for (const Kind& kind : kinds()) {
    const auto weighed = [&](const at::Tensor& part) { return kind.weight == 1 ? part : part * kind.weight; };
    const Labels labels = label(local, all, kind, collective);
    add(weighed(global_loss(local, all, kind, labels)));
    const bool has_regions = kind.first == Modality::kImage && kind.second == Modality::kText;
    if (has_regions && !region.is_empty() && config.region_weight > 0)
      add(weighed(config.region_weight * pair_loss(region_similarities(local, all, collective), labels,
                                                   {region->logit_scale(), region->logit_bias()})));
    if (config.consistency > 0)
      add(weighed(config.consistency * consistency_loss(local, all, kind, collective)));
  }
  if (local.view_VD.defined())
    add(config.view_weight *
        self_loss({Modality::kImage, local.view_VD, all_gather_with_gradient(collective, local.view_VD)},
                  local, collective));
  if (config.caption_weight > 0)
    add(config.caption_weight * self_loss({Modality::kText, local.of(Modality::kText).side.whole_ND,
                                           all.of(Modality::kText).side.whole_ND},
                                          local, collective));
  if (local.word_loss_V.defined())
    add(config.word_weight *
        mean_of_views(local.word_loss_V, local,
                      both(all.of(Modality::kImage).present_B, all.of(Modality::kText).present_B),
                      all.samples()));
  if (local.location_loss_V.defined())
    add(config.localization *
        mean_of_views(local.location_loss_V, local, all.of(Modality::kImage).present_B, all.samples()));
  if (local.taught_loss_B.defined())
    add(config.distillation.embedding_weight *
        count_rows({}, all.samples(), 1).divide(local.taught_loss_B.sum()));
  if (setup_.discriminator) add(config.reversal * adversarial_loss(local, all, step));
  if (setup_.hard_negatives)
    setup_.hard_negatives->observe(all.owner_B, all.of(Modality::kText).side.whole_ND);
  return loss;
}

}  // namespace fathom
