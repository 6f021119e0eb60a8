// B batch, T tokens, N = B·T rows, D model width.
#include "train/task/language.h"

#include <torch/torch.h>

#include "models/model_folder.h"
#include "train/losses/linear_cross_entropy.h"
#include "train/task/module_parameters.h"

namespace fathom {
namespace {

/// The next token at each place, −1 where there is none.
at::Tensor targets(const Batch& batch) {
  if (batch.target_BT.defined()) return batch.target_BT;
  const at::Tensor next_BT = batch.tokens_BT.slice(1, 1);
  if (!batch.length_B.defined()) return next_BT;
  const at::Tensor place_T = at::arange(1, batch.tokens_BT.size(1), next_BT.options());
  return next_BT.masked_fill(place_T.unsqueeze(0).ge(batch.length_B.unsqueeze(1)), -1);
}

}  // namespace

NamedParameters LanguageTask::parameters() const {
  return module_parameters(*setup_.model);
}

void LanguageTask::before_step(std::span<const MicroBatch> micro_batches, const StepContext& step) {
  num_targets_ = count_over_step(micro_batches, step, setup_.model->head_weight(),
                                 [](const Batch& batch) { return targets(batch).ge(0).sum(); });
}

at::Tensor LanguageTask::loss(const MicroBatch& micro_batch, const StepContext&) {
  const Batch& batch = micro_batch.batch;
  const at::Tensor input_BT = batch.tokens_BT.slice(1, 0, -1);
  // Windows of plain text are all of one length; without one, attention and gates need no mask.
  const bool padded = batch.target_BT.defined() || batch.segment_BT.defined();
  const at::Tensor length_B =
      padded && batch.length_B.defined() ? batch.length_B.clamp_max(input_BT.size(1)) : at::Tensor();
  ForwardContext context = micro_batch.forward;
  context.segment_BT = batch.segment_BT;
  const at::Tensor hidden_BTD = setup_.model->hidden(input_BT, length_B, context);
  return linear_cross_entropy(
      hidden_BTD.flatten(0, 1), setup_.model->head_weight(), targets(batch).reshape(-1),
      {.types = context.linear_types(hidden_BTD, Feeds::kLoss), .divisor = num_targets_.clamp_min(1)});
}

void LanguageTask::save_model(const std::string& folder, const Json& record) {
  save_model_folder(
      folder, setup_.model,
      {.tokenizer_json = setup_.tokenizer_json, .record = record, .adapter_base = setup_.adapter_base});
}

double LanguageTask::flops_per_sample() const {
  return 3.0 * static_cast<double>(forward_flops(setup_.model->config(), 1, setup_.num_tokens));
}

}  // namespace fathom
