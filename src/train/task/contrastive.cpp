// B images of this rank, M texts of this rank (K an image), N images and L texts of all ranks, D width.
#include "train/task/contrastive.h"

#include <torch/torch.h>

#include "base/error.h"
#include "distributed/autograd_collectives.h"
#include "models/model_folder.h"
#include "train/losses/contrastive_losses.h"
#include "train/task/module_parameters.h"

namespace fathom {

void ContrastiveConfig::fields(Fields& f) {
  f.choice("loss", loss, "softmax over the batch, or a decision about every pair",
           {{"infonce", ContrastiveLoss::kInfoNce}, {"sigmoid", ContrastiveLoss::kSigmoid}});
  f("label_smoothing", label_smoothing, "part of the target spread over all candidates (infonce)",
    {.low = 0, .high = 0.99});
  f("match_equal_captions", match_equal_captions,
    "a caption that equals one of another picture is no negative for it");
}

NamedParameters ContrastiveTask::parameters() const {
  return module_parameters(*setup_.model);
}

ContrastiveTask::Embeddings ContrastiveTask::embed(const MicroBatch& micro_batch) {
  const Batch& batch = micro_batch.batch;
  FATHOM_CHECK(batch.image_BCHW.defined() && batch.tokens_BT.defined(),
               "[contrastive] expected images and captions in every batch");
  ForwardContext text_context = micro_batch.forward;
  const int64_t captions = batch.tokens_BT.size(0) / batch.size();
  if (captions > 1 && text_context.key_B.defined()) {
    const at::Tensor place_K = at::arange(captions, text_context.key_B.options());
    text_context.key_B = (text_context.key_B.unsqueeze(1) + place_K).flatten();
  }
  Embeddings local;
  local.image_BD = setup_.model->embed_image(batch.image_BCHW, micro_batch.forward);
  local.text_MD = setup_.model->embed_text(batch.tokens_BT, batch.length_B, text_context);
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

at::Tensor ContrastiveTask::loss_of(const Embeddings& local, Collective& collective) const {
  const at::Tensor image_ND = all_gather_with_gradient(collective, local.image_BD);
  const at::Tensor text_LD = all_gather_with_gradient(collective, local.text_MD);
  const at::Tensor owner_N = collective.all_gather(local.owner_B);
  const at::Tensor caption_L = collective.all_gather(local.caption_M);
  const int64_t captions = text_LD.size(0) / image_ND.size(0);
  const auto label = [&](const at::Tensor& owner_T, const at::Tensor& caption_T, const at::Tensor& owner_I,
                         const at::Tensor& caption_of_I) {
    const at::Tensor owner_of_text = owner_T.repeat_interleave(captions);
    if (!setup_.config.match_equal_captions) return label_pairs(owner_of_text, owner_I);
    return label_pairs(owner_of_text, owner_I, caption_T, caption_of_I.view({-1, captions}));
  };
  const at::Tensor image_to_text =
      score(at::mm(local.image_BD, text_LD.t()),
            transpose(label(owner_N, caption_L, local.owner_B, local.caption_M)));
  const auto num_images = static_cast<double>(image_ND.size(0));
  if (setup_.config.loss == ContrastiveLoss::kSigmoid) return image_to_text / num_images;
  const at::Tensor text_to_image =
      score(at::mm(local.text_MD, image_ND.t()), label(local.owner_B, local.caption_M, owner_N, caption_L));
  return 0.5 * (image_to_text / num_images + text_to_image / static_cast<double>(text_LD.size(0)));
}

at::Tensor ContrastiveTask::loss(const MicroBatch& micro_batch, const StepContext& step) {
  return loss_of(embed(micro_batch), step.collective);
}

at::Tensor ContrastiveTask::forward_backward(std::span<const MicroBatch> micro_batches,
                                             const StepContext& step) {
  if (micro_batches.size() == 1) return Task::forward_backward(micro_batches, step);
  const auto join = [](std::span<const Embeddings> parts, at::Tensor Embeddings::*member) {
    std::vector<at::Tensor> tensors;
    for (const Embeddings& part : parts) tensors.push_back(part.*member);
    return at::cat(tensors);
  };
  std::vector<Embeddings> parts;
  {
    const torch::NoGradGuard no_grad;
    for (const MicroBatch& micro_batch : micro_batches) parts.push_back(embed(micro_batch));
  }
  const Embeddings whole{join(parts, &Embeddings::image_BD).requires_grad_(),
                         join(parts, &Embeddings::text_MD).requires_grad_(),
                         join(parts, &Embeddings::owner_B), join(parts, &Embeddings::caption_M)};
  const at::Tensor loss = loss_of(whole, step.collective);
  loss.backward();
  int64_t image_row = 0;
  int64_t text_row = 0;
  for (const MicroBatch& micro_batch : micro_batches) {
    if (&micro_batch == &micro_batches.back()) step.expect_last_backward();
    const Embeddings part = embed(micro_batch);
    const int64_t images = part.image_BD.size(0);
    const int64_t texts = part.text_MD.size(0);
    torch::autograd::backward({part.image_BD, part.text_MD},
                              {whole.image_BD.grad().narrow(0, image_row, images),
                               whole.text_MD.grad().narrow(0, text_row, texts)});
    image_row += images;
    text_row += texts;
  }
  return loss.detach();
}

void ContrastiveTask::save_model(const std::string& folder, const Json& record) {
  save_model_folder(folder, setup_.model, {.tokenizer_json = setup_.tokenizer_json, .record = record});
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
  return 3.0 * static_cast<double>(forward_flops(config, 1, 0) + text * setup_.captions_per_image);
}

}  // namespace fathom
