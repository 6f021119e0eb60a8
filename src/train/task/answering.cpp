// B samples, T tokens, D model width.
#include "train/task/answering.h"

#include <torch/torch.h>

#include "evaluate/embedding.h"
#include "models/model_folder.h"
#include "train/losses/linear_cross_entropy.h"
#include "train/task/module_parameters.h"

namespace fathom {

void AnsweringConfig::fields(Fields& f) {
  f("label_smoothing", label_smoothing, "part of the target spread over all answers (classes)",
    {.low = 0, .high = 0.99});
}

NamedParameters AnsweringTask::parameters() const {
  return module_parameters(*setup_.model);
}

/// Classes: [B]. Generated: [B, T − 1], the token behind each place where that is an answer's. −1: not
/// learned.
at::Tensor AnsweringTask::targets(const Batch& batch) const {
  if (setup_.model->config().answer == AnswerKind::kClasses) return batch.label_B;
  const at::Tensor next_BT = batch.tokens_BT.slice(1, 1);
  const at::Tensor place_1T = at::arange(1, batch.tokens_BT.size(1), next_BT.options()).unsqueeze(0);
  const at::Tensor learned_BT =
      place_1T.ge(batch.prompt_length_B.unsqueeze(1)) & place_1T.lt(batch.length_B.unsqueeze(1));
  return next_BT.masked_fill(~learned_BT, -1);
}

void AnsweringTask::before_step(std::span<const MicroBatch> micro_batches, const StepContext& step) {
  const torch::NoGradGuard no_grad;
  const at::Tensor like = setup_.model->parameters().front();
  num_targets_ = at::zeros({}, like.options().requires_grad(false));
  for (const MicroBatch& micro_batch : micro_batches) num_targets_ += targets(micro_batch.batch).ge(0).sum();
  step.collective.all_reduce(num_targets_);
}

at::Tensor AnsweringTask::loss(const MicroBatch& micro_batch, const StepContext&) {
  const Batch& batch = micro_batch.batch;
  const ForwardContext& context = micro_batch.forward;
  const at::Tensor region_BPD = setup_.model->perceive(batch.image_BCHW, context);
  const PromptedTokens text{batch.tokens_BT, batch.length_B, batch.prompt_length_B};
  const at::Tensor target = targets(batch);
  if (setup_.model->config().answer == AnswerKind::kClasses) {
    const at::Tensor logits_BC = setup_.model->class_logits(region_BPD, text, context);
    const auto wide = at::promote_types(logits_BC.scalar_type(), at::kFloat);
    return at::cross_entropy_loss(logits_BC.to(wide), target, {}, at::Reduction::Sum, /*ignore_index=*/-1,
                                  setup_.config.label_smoothing) /
           num_targets_.clamp_min(1);
  }
  const at::Tensor hidden_BTD = setup_.model->hidden(region_BPD, text, context).slice(1, 0, -1);
  const at::Tensor sum =
      linear_cross_entropy(hidden_BTD.flatten(0, 1), setup_.model->text()->head_weight(), target.reshape(-1));
  return sum / num_targets_.clamp_min(1);
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
  return 3.0 * static_cast<double>(forward_flops(setup_.model->config(), 1, setup_.num_tokens));
}

}  // namespace fathom
