// B pictures, V·B views and M texts (K a picture) of this rank, N views and L texts of all ranks, D width.
#include "train/task/contrastive.h"

#include <torch/torch.h>

#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "distributed/autograd_collectives.h"
#include "models/model_folder.h"
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
  if (setup_.config.self_weight == 0) return;
  view_head_ = ViewHead(setup_.model->config().vision.output_dim());
  init_parameters(*view_head_, setup_.seed);
  const at::Tensor like = setup_.model->parameters().front();
  view_head_->to(like.device(), like.scalar_type());
}

NamedParameters ContrastiveTask::parameters() const {
  NamedParameters all = module_parameters(*setup_.model);
  if (!view_head_) return all;
  for (auto& [name, parameter] : module_parameters(*view_head_))
    all.emplace_back("view_head." + name, parameter);
  return all;
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
  const at::Tensor pooled_VD =
      setup_.model->vision()->forward(batch.image_BCHW, context_of(batch.image_BCHW));
  local.image_VD = setup_.model->project_image(pooled_VD, context_of(batch.image_BCHW));
  if (view_head_) local.view_VD = view_head_->forward(pooled_VD);
  local.text_MD = setup_.model->embed_text(batch.tokens_BT, batch.length_B, context_of(batch.tokens_BT));
  local.owner_B = batch.index_B;
  local.caption_M = caption_ids(batch.tokens_BT, batch.length_B);
  return local;
}

at::Tensor ContrastiveTask::score(const at::Tensor& similarity_RC, const PairLabels& labels) const {
  at::Tensor logits_RC = similarity_RC * setup_.model->logit_scale();
  if (setup_.model->logit_bias().defined()) logits_RC = logits_RC + setup_.model->logit_bias();
  if (setup_.config.loss == ContrastiveLoss::kSigmoid) return pairwise_sigmoid(logits_RC, labels);
  return info_nce(logits_RC, labels, setup_.config.label_smoothing);
}

at::Tensor ContrastiveTask::pair_loss(const Embeddings& local, Collective& collective) const {
  const at::Tensor image_ND = all_gather_with_gradient(collective, local.image_VD);
  const at::Tensor text_LD = all_gather_with_gradient(collective, local.text_MD);
  const at::Tensor owner_N = collective.all_gather(local.owner_B);
  const at::Tensor caption_L = collective.all_gather(local.caption_M);
  const int64_t captions = local.text_MD.size(0) / local.owner_B.size(0);
  const int64_t views = local.image_VD.size(0) / local.owner_B.size(0);
  const auto label = [&](const at::Tensor& owner_T, const at::Tensor& caption_T, const at::Tensor& owner_I,
                         const at::Tensor& caption_of_I) {
    const at::Tensor owner_of_text = owner_T.repeat_interleave(captions);
    const at::Tensor owner_of_view = owner_I.repeat_interleave(views);
    if (!setup_.config.match_equal_captions) return label_pairs(owner_of_text, owner_of_view);
    return label_pairs(owner_of_text, owner_of_view, caption_T,
                       caption_of_I.view({-1, captions}).repeat_interleave(views, 0));
  };
  const at::Tensor image_to_text =
      score(at::mm(local.image_VD, text_LD.t()),
            transpose(label(owner_N, caption_L, local.owner_B, local.caption_M)));
  const auto num_views = static_cast<double>(image_ND.size(0));
  if (setup_.config.loss == ContrastiveLoss::kSigmoid) return image_to_text / num_views;
  const at::Tensor text_to_image =
      score(at::mm(local.text_MD, image_ND.t()), label(local.owner_B, local.caption_M, owner_N, caption_L));
  return 0.5 * (image_to_text / num_views + text_to_image / static_cast<double>(text_LD.size(0)));
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

at::Tensor ContrastiveTask::loss_of(const Embeddings& local, Collective& collective) const {
  const at::Tensor pairs = pair_loss(local, collective);
  return view_head_ ? pairs + setup_.config.self_weight * view_loss(local, collective) : pairs;
}

at::Tensor ContrastiveTask::loss(const MicroBatch& micro_batch, const StepContext& step) {
  return loss_of(embed(micro_batch), step.collective);
}

at::Tensor ContrastiveTask::forward_backward(std::span<const MicroBatch> micro_batches,
                                             const StepContext& step) {
  if (micro_batches.size() == 1) return Task::forward_backward(micro_batches, step);
  constexpr at::Tensor Embeddings::*kLearned[] = {&Embeddings::image_VD, &Embeddings::text_MD,
                                                  &Embeddings::view_VD};
  std::vector<Embeddings> parts;
  {
    const torch::NoGradGuard no_grad;
    for (const MicroBatch& micro_batch : micro_batches) parts.push_back(embed(micro_batch));
  }
  const auto join = [&](at::Tensor Embeddings::*member) {
    std::vector<at::Tensor> tensors;
    for (const Embeddings& part : parts)
      if ((part.*member).defined()) tensors.push_back(part.*member);
    return tensors.empty() ? at::Tensor() : at::cat(tensors);
  };
  Embeddings whole{.owner_B = join(&Embeddings::owner_B), .caption_M = join(&Embeddings::caption_M)};
  for (const auto member : kLearned)
    if ((parts.front().*member).defined()) whole.*member = join(member).requires_grad_();
  const at::Tensor loss = loss_of(whole, step.collective);
  loss.backward();

  std::array<int64_t, std::size(kLearned)> row{};
  for (const MicroBatch& micro_batch : micro_batches) {
    if (&micro_batch == &micro_batches.back()) step.expect_last_backward();
    const Embeddings part = embed(micro_batch);
    std::vector<at::Tensor> outputs, gradients;
    for (size_t i = 0; i < row.size(); ++i) {
      const at::Tensor& output = part.*kLearned[i];
      if (!output.defined()) continue;
      const int64_t start = std::exchange(row[i], row[i] + output.size(0));
      if (!output.requires_grad()) continue;  // of a frozen tower
      outputs.push_back(output);
      gradients.push_back((whole.*kLearned[i]).grad().narrow(0, start, output.size(0)));
    }
    if (!outputs.empty()) torch::autograd::backward(outputs, gradients);
  }
  return loss.detach();
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
