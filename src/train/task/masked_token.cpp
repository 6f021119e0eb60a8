// B batch, T tokens, K chosen places a row, D model width.
#include "train/task/masked_token.h"

#include <torch/torch.h>

#include "base/error.h"
#include "models/model_folder.h"
#include "train/losses/linear_cross_entropy.h"
#include "train/task/module_parameters.h"

namespace fathom {

double masked_token_flops(const LanguageModelConfig& model, const TokenMaskConfig& config, int64_t tokens) {
  const int64_t unseen = tokens - config.most_chosen(tokens);
  const double head = 2.0 * static_cast<double>(unseen) * static_cast<double>(model.dim * model.vocab_size);
  return 3.0 * (static_cast<double>(forward_flops(model, 1, tokens)) - head);
}

NamedParameters MaskedTokenTask::parameters() const {
  return module_parameters(*setup_.model);
}

void MaskedTokenTask::before_step(std::span<const MicroBatch> micro_batches, const StepContext& step) {
  num_chosen_ = count_over_step(micro_batches, step, setup_.model->head_weight(), [&](const Batch& batch) {
    return count_masked(batch.tokens_BT, batch.length_B, setup_.config, setup_.vocabulary);
  });
}

at::Tensor MaskedTokenTask::loss(const MicroBatch& micro_batch, const StepContext&) {
  const Batch& batch = micro_batch.batch;
  FATHOM_CHECK(batch.tokens_BT.defined() && micro_batch.forward.key_B.defined(),
               "[masked_token] expected texts and keys in every batch");
  const MaskedTokens masked = mask_tokens(micro_batch.forward.key_B, batch.tokens_BT, batch.length_B,
                                          setup_.config, setup_.vocabulary);
  const at::Tensor hidden_BTD = setup_.model->hidden(
      masked.input_BT, setup_.padded ? batch.length_B : at::Tensor(), micro_batch.forward);
  const at::Tensor chosen_BKD =
      hidden_BTD.gather(1, masked.place_BK.unsqueeze(2).expand({-1, -1, hidden_BTD.size(2)}));
  return linear_cross_entropy(chosen_BKD.flatten(0, 1), setup_.model->head_weight(),
                              masked.target_BK.reshape(-1),
                              {.types = micro_batch.forward.linear_types(chosen_BKD, Feeds::kLoss),
                               .divisor = num_chosen_.clamp_min(1)});
}

void MaskedTokenTask::save_model(const std::string& folder, const Json& record) {
  save_model_folder(
      folder, setup_.model,
      {.tokenizer_json = setup_.tokenizer_json, .record = record, .adapter_base = setup_.adapter_base});
}

double MaskedTokenTask::flops_per_sample() const {
  return masked_token_flops(setup_.model->config(), setup_.config, setup_.num_tokens);
}

}  // namespace fathom
