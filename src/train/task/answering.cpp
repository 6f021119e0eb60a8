// B samples, T tokens, D model width.
#include "train/task/answering.h"

#include <torch/torch.h>

#include <algorithm>

#include "evaluate/embedding.h"
#include "models/model_folder.h"
#include "nn/grad_reversal.h"
#include "nn/temperature.h"
#include "tensor/random_keys.h"
#include "train/losses/contrastive_losses.h"
#include "train/losses/linear_cross_entropy.h"
#include "train/task/module_parameters.h"

namespace fathom {
namespace {

/// Tells this use of a sample's key from those of layers, whose streams are small, and of adapters, whose
/// have bit 60 set.
constexpr int64_t kModalityStream = int64_t{1} << 40;

/// Mean of the tokens that count, of unit length: [B, D].
at::Tensor mean_token(const ModalityTokens& tokens) {
  const at::Tensor wide_BSD =
      tokens.token_BSD.to(at::promote_types(tokens.token_BSD.scalar_type(), at::kFloat));
  if (!tokens.mask_BS.defined()) return unit_length(wide_BSD.mean(1));
  return unit_length(wide_BSD.masked_fill(tokens.mask_BS.logical_not().unsqueeze(2), 0).sum(1) /
                     tokens.mask_BS.sum(1, /*keepdim=*/true).clamp_min(1));
}

ModalityTokens without(const ModalityTokens& tokens, const at::Tensor& left_out_B) {
  const at::Tensor keep_B1 = left_out_B.logical_not().unsqueeze(1);
  return {tokens.token_BSD, tokens.mask_BS.defined()
                                ? tokens.mask_BS & keep_B1
                                : keep_B1.expand({-1, tokens.token_BSD.size(1)}).contiguous()};
}

/// Each sample's rows, as many times as it has questions, one behind the other.
at::Tensor repeated(const at::Tensor& x, int64_t times) {
  if (!x.defined() || times == 1) return x;
  std::vector<int64_t> sizes(static_cast<size_t>(x.dim()) + 1, -1);
  sizes[1] = times;
  return x.unsqueeze(1).expand(sizes).flatten(0, 1);
}

Percept repeated(const Percept& percept, int64_t times) {
  return {.image = {repeated(percept.image.token_BSD, times), repeated(percept.image.mask_BS, times)},
          .caption = {repeated(percept.caption.token_BSD, times), repeated(percept.caption.mask_BS, times)}};
}

}  // namespace

void AnsweringConfig::fields(Fields& f) {
  f("label_smoothing", label_smoothing, "part of the target spread over all answers (classes)",
    {.low = 0, .high = 0.99});
  f("modality_dropout", modality_dropout,
    "share of questions that are learned without their picture, or without their caption (model.captions)",
    {.low = 0, .high = 1});
  f("consistency", consistency,
    "weight of the symmetric divergence between the answers from the picture alone and from the caption "
    "alone (model.captions); 0 for none",
    {.low = 0});
  f("reversal", reversal,
    "weight of a discriminator that tells the picture's tokens from the caption's, whose gradient reaches "
    "the model reversed, times 2/(1 + exp(-10 p)) - 1 at progress p (model.captions); 0 for none",
    {.low = 0});
}

AnsweringTask::AnsweringTask(Setup setup) : setup_(std::move(setup)) {
  if (setup_.config.reversal == 0) return;
  const at::Tensor like = setup_.model->parameters().front();
  discriminator_ = ModalityDiscriminator(setup_.model->config().text.dim, 2);
  init_parameters(*discriminator_, setup_.seed);
  discriminator_->to(like.device(), like.scalar_type());
}

NamedParameters AnsweringTask::parameters() const {
  NamedParameters all = module_parameters(*setup_.model);
  if (discriminator_)
    for (auto& [name, parameter] : module_parameters(*discriminator_))
      all.emplace_back("discriminator." + name, parameter);
  return all;
}

/// Classes: [B]. Generated: [B, T − 1], the token behind each place where that is an answer's. −1: not
/// learned.
at::Tensor AnsweringTask::targets(const Batch& batch) const {
  if (setup_.model->config().answer == AnswerKind::kClasses) return batch.label_B;
  return answer_targets(asked_texts(batch).question);
}

AnsweringTask::Asked AnsweringTask::asked_in(const MicroBatch& micro_batch) const {
  const Batch& batch = micro_batch.batch;
  const int64_t each = batch.questions_each();
  Asked asked{.text = asked_texts(batch).question, .context = micro_batch.forward, .target = targets(batch)};
  if (each == 1) return asked;
  if (asked.context.key_B.defined()) asked.context.key_B = keys_of_rows(asked.context.key_B, each);
  asked.context.sample_share /= static_cast<double>(each);
  asked.asks_B = batch.prompt_length_B.gt(0);
  return asked;
}

void AnsweringTask::before_step(std::span<const MicroBatch> micro_batches, const StepContext& step) {
  const at::Tensor like = setup_.model->parameters().front();
  num_targets_ = count_over_step(micro_batches, step, like,
                                 [&](const Batch& batch) { return targets(batch).ge(0).sum(); });
  if (setup_.questions_per_image == 1 || setup_.config.consistency == 0) return;
  num_questions_ = count_over_step(micro_batches, step, like,
                                   [](const Batch& batch) { return batch.prompt_length_B.gt(0).sum(); });
}

at::Tensor AnsweringTask::answer_loss(const Percept& percept, const Asked& asked) {
  if (setup_.model->config().answer == AnswerKind::kClasses) {
    const at::Tensor logits_BC = setup_.model->class_logits(percept, asked.text, asked.context);
    const auto wide = at::promote_types(logits_BC.scalar_type(), at::kFloat);
    return at::cross_entropy_loss(logits_BC.to(wide), asked.target, {}, at::Reduction::Sum,
                                  /*ignore_index=*/-1, setup_.config.label_smoothing) /
           num_targets_.clamp_min(1);
  }
  const at::Tensor hidden_BTD = setup_.model->hidden(percept, asked.text, asked.context).slice(1, 0, -1);
  return linear_cross_entropy(
      hidden_BTD.flatten(0, 1), setup_.model->text()->head_weight(), asked.target.reshape(-1),
      {.types = asked.context.linear_types(hidden_BTD, Feeds::kLoss), .divisor = num_targets_.clamp_min(1)});
}

/// What is chosen among, one row a target: classes [B, C], or tokens at the places of answers [N, V].
at::Tensor AnsweringTask::answer_logits(const Percept& percept, const Asked& asked) {
  at::Tensor logits_RC;
  if (setup_.model->config().answer == AnswerKind::kClasses) {
    logits_RC = setup_.model->class_logits(percept, asked.text, asked.context);
  } else {
    const at::Tensor place_N = asked.target.reshape(-1).ge(0).nonzero().squeeze(1);
    const at::Tensor hidden_BTD = setup_.model->hidden(percept, asked.text, asked.context).slice(1, 0, -1);
    logits_RC =
        setup_.model->text()->logits(hidden_BTD.flatten(0, 1).index_select(0, place_N), asked.context);
  }
  return logits_RC.to(at::promote_types(logits_RC.scalar_type(), at::kFloat));
}

at::Tensor AnsweringTask::consistency_loss(const Percept& percept, Asked asked, int64_t samples) {
  asked.context.sample_share = 0;  // gates count these questions where they are answered
  const at::Tensor by_image_RC = answer_logits({.image = percept.image}, asked);
  const at::Tensor by_caption_RC = answer_logits({.image = {}, .caption = percept.caption}, asked);
  const bool by_row = setup_.model->config().answer == AnswerKind::kClasses;
  at::Tensor keep_RC = at::ones_like(by_image_RC, by_image_RC.options().dtype(at::kBool));
  if (by_row && asked.asks_B.defined()) keep_RC = keep_RC & asked.asks_B.unsqueeze(1);
  const at::Tensor sum = symmetric_divergence(by_image_RC, by_caption_RC, keep_RC);
  if (!by_row) return sum / num_targets_.clamp_min(1);
  if (asked.asks_B.defined()) return sum / num_questions_.clamp_min(1);
  return sum / static_cast<double>(samples);
}

/// Of the questions that modality dropout draws, one half loses its picture, the other its caption.
void AnsweringTask::leave_out(Percept& percept, const ForwardContext& context) const {
  const double share = setup_.config.modality_dropout;
  if (share == 0 || !context.drops() || !percept.caption.defined()) return;
  const at::Tensor draw_B = keyed_uniform(context.key_B, {1}, kModalityStream).squeeze(1);
  percept.image = without(percept.image, draw_B.lt(share / 2));
  percept.caption = without(percept.caption, draw_B.ge(share / 2) & draw_B.lt(share));
}

at::Tensor AnsweringTask::loss(const MicroBatch& micro_batch, const StepContext& step) {
  const Percept percept = perceive(setup_.model, micro_batch.batch, micro_batch.forward);
  const Percept shared = repeated(percept, micro_batch.batch.questions_each());
  const Asked asked = asked_in(micro_batch);
  Percept given = shared;
  leave_out(given, asked.context);
  at::Tensor loss = answer_loss(given, asked);
  if (!percept.caption.defined()) return loss;
  if (setup_.config.consistency > 0)
    loss = loss + setup_.config.consistency * consistency_loss(shared, asked, step.global_samples);
  if (discriminator_) {
    const RowCount all{.known = static_cast<double>(step.global_samples)};
    const std::vector<ModalityDiscriminatorImpl::Part> parts = {
        {.embedding_ND = mean_token(percept.image), .count = all},
        {.embedding_ND = mean_token(percept.caption), .count = all}};
    loss = loss +
           setup_.config.reversal * discriminator_->adversarial_loss(parts, reversal_strength(step.progress));
  }
  return loss;
}

/// The places that generated answers are compared at are counted by the host.
bool AnsweringTask::launches_alike() const {
  return setup_.config.consistency == 0 || !setup_.model->config().captions ||
         setup_.model->config().answer == AnswerKind::kClasses;
}

void AnsweringTask::save_model(const std::string& folder, const Json& record) {
  save_model_folder(
      folder, setup_.model,
      {.tokenizer_json = setup_.tokenizer_json, .record = record, .adapter_base = setup_.adapter_base});
}

PixelStatistics AnsweringTask::pixels() const {
  return pixel_statistics(setup_.model->config().vision.preprocessing);
}

double AnsweringTask::flops_per_sample() const {
  return 3.0 * static_cast<double>(
                   forward_flops(setup_.model->config(), 1, setup_.num_tokens, setup_.questions_per_image));
}

}  // namespace fathom
