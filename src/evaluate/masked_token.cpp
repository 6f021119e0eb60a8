// B batch, T tokens, K chosen places a row, N chosen tokens, D model width.
#include "evaluate/masked_token.h"

#include <torch/torch.h>

#include <utility>

#include "batch/loader.h"
#include "evaluate/language.h"
#include "evaluate/model_inputs.h"
#include "tensor/random_keys.h"

namespace fathom {

double MaskedTokenReport::nats_per_token() const {
  return nats / static_cast<double>(tokens);
}

double MaskedTokenReport::accuracy() const {
  return 100.0 * static_cast<double>(correct) / static_cast<double>(tokens);
}

Json MaskedTokenReport::to_json() const {
  return Json::Object{{"task", "masked_token"},
                      {"masked_nats", nats_per_token()},
                      {"masked_accuracy", accuracy()},
                      {"tokens", tokens}};
}

MaskedTokenReport evaluate_masked_tokens(LanguageModel model, std::shared_ptr<const SampleSource> source,
                                         const TokenMaskConfig& config, const MaskVocabulary& vocabulary,
                                         const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  model->eval();
  MaskedTokenReport report;
  LoaderSetup setup = one_pass(std::move(source), options.batch_size, options.workers);
  setup.collate.padding_id = vocabulary.mask;  // any: it is not seen
  Loader loader(std::move(setup));
  while (auto loaded = loader.next()) {
    require_known_tokens(loaded->tokens_BT, model->config().vocab_size);
    const at::Tensor key_B = make_sample_keys(loaded->index_B, 0, 0).to(options.device);
    const Batch batch = to_device(std::move(*loaded), options.device);
    const MaskedTokens masked = mask_tokens(key_B, batch.tokens_BT, batch.length_B, config, vocabulary);
    const at::Tensor hidden_BTD = model->hidden(masked.input_BT, batch.length_B, options.context());
    const at::Tensor row_B1 = at::arange(masked.place_BK.size(0), masked.place_BK.options()).unsqueeze(1);
    const at::Tensor chosen_BK = masked.target_BK.ge(0);
    const at::Tensor hidden_ND = hidden_BTD.index({row_B1, masked.place_BK}).index({chosen_BK}),
                     target_N = masked.target_BK.index({chosen_BK});
    report.nats += total_nats(model, hidden_ND, target_N);
    report.correct += model->logits(hidden_ND).argmax(-1).eq(target_N).sum().item<int64_t>();
    report.tokens += target_N.size(0);
  }
  return report;
}

}  // namespace fathom
