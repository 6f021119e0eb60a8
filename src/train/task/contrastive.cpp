// B pictures, V·B views and M texts (K a picture) of this rank, N views and L texts of all ranks, D width.
#include "train/task/contrastive.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "distributed/autograd_collectives.h"
#include "models/model_folder.h"
#include "nn/grad_reversal.h"
#include "nn/temperature.h"
#include "train/losses/contrastive_losses.h"
#include "train/task/module_parameters.h"

namespace fathom {
namespace {

constexpr int64_t kViewHeadWidth = 512;
constexpr int64_t kViewWidth = 128;

Linear make_linear(int64_t in, int64_t out) {
  return Linear(
      LinearOptions{.in = in, .out = out, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))});
}

}  // namespace

void ContrastiveConfig::fields(Fields& f) {
  f.choice("loss", loss, "softmax over the batch, or a decision about every pair",
           {{"infonce", ContrastiveLoss::kInfoNce}, {"sigmoid", ContrastiveLoss::kSigmoid}});
  f("label_smoothing", label_smoothing, "part of the target spread over all candidates (infonce)",
    {.low = 0, .high = 0.99});
  f("match_equal_captions", match_equal_captions,
    "a caption that equals one of another picture is no negative for it");
  f("self_weight", self_weight, "weight of the contrast among views of one picture; 0 for none", {.low = 0});
  f("self_temperature", self_temperature, "its temperature", {.low = 0.001});
  f("region_weight", region_weight, "weight of the loss over region scores, where model.region gives them",
    {.low = 0});
  f("reversal", reversal,
    "weight of a discriminator that tells pictures from texts by their embeddings, whose gradient reaches "
    "the "
    "towers reversed, times 2/(1 + exp(-10 p)) - 1 at progress p; 0 for none",
    {.low = 0});
  f("consistency", consistency,
    "weight of the symmetric divergence between whom a sample's picture and its text resemble in the batch; "
    "0 "
    "for none",
    {.low = 0});
  f.group("hard_negatives", hard_negatives, "which negatives meet, and what each weighs");
}

ViewHeadImpl::ViewHeadImpl(int64_t in)
    : hidden_(register_module("hidden", make_linear(in, kViewHeadWidth))),
      out_(register_module("out", make_linear(kViewHeadWidth, kViewWidth))) {}

at::Tensor ViewHeadImpl::forward(const at::Tensor& pooled_BD) {
  const at::Tensor wide_BD = pooled_BD.to(hidden_->weight().scalar_type());
  const at::Tensor view_BD = out_->forward(at::gelu(hidden_->forward(wide_BD)));
  return view_BD / at::linalg_vector_norm(view_BD, 2, {-1}, true).clamp_min(1e-12);
}

ContrastiveTask::ContrastiveTask(Setup setup) : setup_(std::move(setup)) {
  const at::Tensor like = setup_.model->parameters().front();
  const DualTowerConfig& model = setup_.model->config();
  const auto place = [&](torch::nn::Module& module) {
    init_parameters(module, setup_.seed);
    module.to(like.device(), like.scalar_type());
  };
  if (setup_.config.self_weight > 0) {
    view_head_ = ViewHead(model.vision.output_dim());
    place(*view_head_);
  }
  if (setup_.config.reversal > 0) {
    discriminator_ = ModalityDiscriminator(model.embed_dim);
    place(*discriminator_);
  }
}

NamedParameters ContrastiveTask::parameters() const {
  NamedParameters all = module_parameters(*setup_.model);
  const auto add = [&](const char* prefix, const torch::nn::Module& module) {
    for (auto& [name, parameter] : module_parameters(module)) all.emplace_back(prefix + name, parameter);
  };
  if (view_head_) add("view_head.", *view_head_);
  if (discriminator_) add("discriminator.", *discriminator_);
  return all;
}

std::vector<at::Tensor*> ContrastiveTask::Embeddings::learned() {
  return {&image.whole_ND, &image.key_NSD,  &image.value_NSD, &text.whole_ND,
          &text.key_NSD,   &text.value_NSD, &view_VD};
}

ContrastiveTask::Embeddings ContrastiveTask::embed(const MicroBatch& micro_batch) {
  const Batch& batch = micro_batch.batch;
  FATHOM_CHECK(batch.image_BCHW.defined() && batch.tokens_BT.defined(),
               "[contrastive] expected images and captions in every batch");
  const auto context_of = [&](const at::Tensor& rows) {
    ForwardContext context = micro_batch.forward;
    const int64_t rows_each = rows.size(0) / batch.size();
    if (rows_each > 1 && context.key_B.defined()) {
      const at::Tensor place_K = at::arange(rows_each, context.key_B.options());
      context.key_B = (context.key_B.unsqueeze(1) + place_K).flatten();
    }
    return context;
  };
  Embeddings local;
  const at::Tensor region_VPD =
      setup_.model->vision()->features(batch.image_BCHW, context_of(batch.image_BCHW));
  local.image = setup_.model->encode_regions(region_VPD, context_of(batch.image_BCHW));
  if (view_head_) local.view_VD = view_head_->forward(region_VPD.mean(1));
  local.text = setup_.model->encode_text(batch.tokens_BT, batch.length_B, context_of(batch.tokens_BT));
  local.owner_B = batch.index_B;
  local.caption_M = caption_ids(batch.tokens_BT, batch.length_B);
  return local;
}

/// What a rank compares its own with.
struct ContrastiveTask::Gathered {
  at::Tensor image_ND, text_LD;
  at::Tensor owner_N, caption_L;  ///< of pictures (not views) and of texts
};

ContrastiveTask::Labels ContrastiveTask::label(const Embeddings& local, const Gathered& all) const {
  const int64_t captions = local.text.whole_ND.size(0) / local.owner_B.size(0);
  const int64_t views = local.image.whole_ND.size(0) / local.owner_B.size(0);
  const auto of_texts = [&](const at::Tensor& owner) { return owner.repeat_interleave(captions); };
  const auto of_views = [&](const at::Tensor& owner) { return owner.repeat_interleave(views); };
  const auto pairs = [&](const at::Tensor& owner_T, const at::Tensor& caption_T, const at::Tensor& owner_I,
                         const at::Tensor& caption_of_I) {
    if (!setup_.config.match_equal_captions) return label_pairs(of_texts(owner_T), of_views(owner_I));
    return label_pairs(of_texts(owner_T), of_views(owner_I), caption_T,
                       caption_of_I.view({-1, captions}).repeat_interleave(views, 0));
  };
  Labels labels{transpose(pairs(all.owner_N, all.caption_L, local.owner_B, local.caption_M)),
                pairs(local.owner_B, local.caption_M, all.owner_N, all.caption_L)};
  if (setup_.hard_negatives) {
    setup_.hard_negatives->apply(labels.image_to_text_VL, of_views(local.owner_B), of_texts(all.owner_N));
    setup_.hard_negatives->apply(labels.text_to_image_MN, of_texts(local.owner_B), of_views(all.owner_N));
  }
  return labels;
}

at::Tensor ContrastiveTask::pair_loss(const Similarities& similarities, const Labels& labels,
                                      const Calibration& calibration) const {
  const auto loss = [&](const at::Tensor& similarity_RC, const PairLabels& pairs) {
    at::Tensor logits_RC = similarity_RC * calibration.scale;
    if (calibration.bias.defined()) logits_RC = logits_RC + calibration.bias;
    if (setup_.config.loss == ContrastiveLoss::kSigmoid) return pairwise_sigmoid(logits_RC, pairs);
    return info_nce(logits_RC, pairs, setup_.config.label_smoothing);
  };
  const auto num_texts = static_cast<double>(similarities.image_to_text_VL.size(1));
  const auto num_views = static_cast<double>(similarities.text_to_image_MN.size(1));
  const at::Tensor by_image = loss(similarities.image_to_text_VL, labels.image_to_text_VL) / num_views;
  if (setup_.config.loss == ContrastiveLoss::kSigmoid) return by_image;
  const at::Tensor by_text = loss(similarities.text_to_image_MN, labels.text_to_image_MN) / num_texts;
  return 0.5 * (by_image + by_text);
}

/// Own texts with all pictures; then every rank hears of all scores. A pair is scored once, on the rank of
/// its text, and of the towers' parts only those of pictures travel, whose number is the same everywhere.
ContrastiveTask::Similarities ContrastiveTask::region_similarities(const Embeddings& local,
                                                                   const Gathered& all,
                                                                   Collective& collective) {
  PairSide image{.whole_ND = all.image_ND,
                 .key_NSD = all_gather_with_gradient(collective, local.image.key_NSD)};
  if (local.image.value_NSD.defined())
    image.value_NSD = all_gather_with_gradient(collective, local.image.value_NSD);
  const at::Tensor score_MN = pair_scores(local.text, image);
  const at::Tensor score_LN = all_gather_with_gradient(collective, score_MN);
  const int64_t views = local.image.whole_ND.size(0);
  return {.image_to_text_VL = score_LN.narrow(1, collective.rank() * views, views).t(),
          .text_to_image_MN = score_MN};
}

at::Tensor ContrastiveTask::view_loss(const Embeddings& local, Collective& collective) const {
  const at::Tensor all_ND = all_gather_with_gradient(collective, local.view_VD);
  const int64_t rows = local.view_VD.size(0);
  const int64_t views = rows / local.owner_B.size(0);
  const at::Tensor owner_R = local.owner_B.repeat_interleave(views);
  const at::Tensor owner_N = collective.all_gather(owner_R);
  const at::Tensor place_R = at::arange(rows, owner_R.options()) + rows * collective.rank();
  const at::Tensor itself_RN = place_R.unsqueeze(1) == at::arange(all_ND.size(0), owner_R.options());
  PairLabels labels = label_pairs(owner_R, owner_N);
  labels.positive_RC = labels.positive_RC & ~itself_RN;
  const at::Tensor logits_RN = at::mm(local.view_VD, all_ND.t()) / setup_.config.self_temperature;
  return info_nce(logits_RN, labels) / static_cast<double>(all_ND.size(0));
}

/// Each sample's picture among all pictures against its text among all texts.
at::Tensor ContrastiveTask::consistency_loss(const Embeddings& local, const Gathered& all,
                                             Collective& collective) const {
  const int64_t samples = local.owner_B.size(0), all_samples = all.owner_N.size(0);
  const at::Tensor scale = setup_.model->logit_scale().detach();
  const auto logits = [&](const at::Tensor& embedding_XD) {
    const at::Tensor mean_ND =
        unit_length(embedding_XD.view({all_samples, -1, embedding_XD.size(1)}).mean(1));
    return at::mm(mean_ND.narrow(0, collective.rank() * samples, samples), mean_ND.t()) * scale;
  };
  const at::Tensor other_BN = local.owner_B.unsqueeze(1).ne(all.owner_N.unsqueeze(0));
  return symmetric_divergence(logits(all.image_ND), logits(all.text_LD), other_BN) /
         static_cast<double>(all_samples);
}

at::Tensor ContrastiveTask::loss_of(const Embeddings& local, const StepContext& step) {
  Collective& collective = step.collective;
  const Gathered all{.image_ND = all_gather_with_gradient(collective, local.image.whole_ND),
                     .text_LD = all_gather_with_gradient(collective, local.text.whole_ND),
                     .owner_N = collective.all_gather(local.owner_B),
                     .caption_L = collective.all_gather(local.caption_M)};
  const Labels labels = label(local, all);
  const Similarities global{.image_to_text_VL = at::mm(local.image.whole_ND, all.text_LD.t()),
                            .text_to_image_MN = at::mm(local.text.whole_ND, all.image_ND.t())};
  const DualTower& model = setup_.model;
  at::Tensor loss = pair_loss(global, labels, {model->logit_scale(), model->logit_bias()});
  if (const ModalAttention region = model->region(); !region.is_empty() && setup_.config.region_weight > 0)
    loss = loss + setup_.config.region_weight * pair_loss(region_similarities(local, all, collective), labels,
                                                          {region->logit_scale(), region->logit_bias()});
  if (view_head_) loss = loss + setup_.config.self_weight * view_loss(local, collective);
  if (setup_.config.consistency > 0)
    loss = loss + setup_.config.consistency * consistency_loss(local, all, collective);
  if (discriminator_) {
    const double progress =
        static_cast<double>(step.step) / static_cast<double>(std::max<int64_t>(1, step.total_steps));
    loss = loss + setup_.config.reversal *
                      discriminator_->adversarial_loss(local.image.whole_ND, local.text.whole_ND,
                                                       all.image_ND.size(0), all.text_LD.size(0),
                                                       reversal_strength(progress));
  }
  if (setup_.hard_negatives) setup_.hard_negatives->observe(all.owner_N, all.text_LD);
  return loss;
}

at::Tensor ContrastiveTask::loss(const MicroBatch& micro_batch, const StepContext& step) {
  return loss_of(embed(micro_batch), step);
}

ContrastiveTask::Embeddings ContrastiveTask::join(const std::vector<Embeddings>& parts) {
  const auto cat = [&](at::Tensor Embeddings::*member) {
    std::vector<at::Tensor> tensors;
    for (const Embeddings& part : parts)
      if ((part.*member).defined()) tensors.push_back(part.*member);
    return tensors.empty() ? at::Tensor() : at::cat(tensors);
  };
  std::vector<PairSide> images, texts;
  for (const Embeddings& part : parts) {
    images.push_back(part.image);
    texts.push_back(part.text);
  }
  return {.image = join_sides(images),
          .text = join_sides(texts),
          .view_VD = cat(&Embeddings::view_VD),
          .owner_B = cat(&Embeddings::owner_B),
          .caption_M = cat(&Embeddings::caption_M)};
}

at::Tensor ContrastiveTask::forward_backward(std::span<const MicroBatch> micro_batches,
                                             const StepContext& step) {
  if (micro_batches.size() == 1) return Task::forward_backward(micro_batches, step);
  std::vector<Embeddings> parts;
  {
    const torch::NoGradGuard no_grad;
    for (const MicroBatch& micro_batch : micro_batches) parts.push_back(embed(micro_batch));
  }
  Embeddings whole = join(parts);
  const std::vector<at::Tensor*> learned = whole.learned();
  for (at::Tensor* tensor : learned)
    if (tensor->defined()) tensor->requires_grad_();
  const at::Tensor loss = loss_of(whole, step);
  loss.backward();

  std::vector<int64_t> row(learned.size(), 0);
  for (const MicroBatch& micro_batch : micro_batches) {
    if (&micro_batch == &micro_batches.back()) step.expect_last_backward();
    Embeddings part = embed(micro_batch);
    std::vector<at::Tensor> outputs, gradients;
    for (size_t i = 0; i < learned.size(); ++i) {
      const at::Tensor& output = *part.learned()[i];
      if (!output.defined()) continue;
      const int64_t start = std::exchange(row[i], row[i] + output.size(0));
      const at::Tensor& gradient = learned[i]->grad();
      if (!output.requires_grad() || !gradient.defined()) continue;  // of a frozen tower, or not in use
      outputs.push_back(output);
      const at::Tensor own = gradient.narrow(0, start, output.size(0));
      gradients.push_back(output.dim() < 3 ? own : own.narrow(1, 0, output.size(1)));
    }
    if (!outputs.empty()) torch::autograd::backward(outputs, gradients);
  }
  return loss.detach();
}

void ContrastiveTask::after_step(const StepContext& step) {
  if (setup_.hard_negatives) setup_.hard_negatives->after_step(step);
}

TensorMap ContrastiveTask::state() const {
  return setup_.hard_negatives ? setup_.hard_negatives->state() : TensorMap{};
}

void ContrastiveTask::load_state(const TensorMap& state) {
  // A run that goes on with a bank it did not have begins with an empty one.
  if (setup_.hard_negatives && !state.empty()) setup_.hard_negatives->load_state(state);
}

void ContrastiveTask::save_model(const std::string& folder, const Json& record) {
  save_model_folder(
      folder, setup_.model,
      {.tokenizer_json = setup_.tokenizer_json, .record = record, .adapter_base = setup_.adapter_base});
}

PixelStatistics ContrastiveTask::pixels() const {
  const ImagePreprocessing& preprocessing = setup_.model->config().vision.preprocessing;
  PixelStatistics pixels;
  for (size_t channel = 0; channel < 3; ++channel) {
    pixels.mean[channel] = preprocessing.mean[channel];
    pixels.deviation[channel] = preprocessing.deviation[channel];
  }
  return pixels;
}

double ContrastiveTask::flops_per_sample() const {
  const DualTowerConfig& config = setup_.model->config();
  const int64_t text = forward_flops(config, 1, setup_.num_tokens) - forward_flops(config, 1, 0);
  return 3.0 * static_cast<double>(forward_flops(config, 1, 0) * setup_.views_per_image +
                                   text * setup_.captions_per_image);
}

}  // namespace fathom
