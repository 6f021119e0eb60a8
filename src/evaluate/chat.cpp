// B batch, T tokens, N tokens to be foretold, D model width.
#include "evaluate/chat.h"

#include <torch/torch.h>

#include <utility>

#include "batch/loader.h"
#include "evaluate/language.h"
#include "evaluate/model_inputs.h"

namespace fathom {

double ChatReport::nats_per_token() const {
  return nats / static_cast<double>(tokens);
}

double ChatReport::accuracy() const {
  return 100.0 * static_cast<double>(correct) / static_cast<double>(tokens);
}

Json ChatReport::to_json() const {
  return Json::Object{{"answer_nats", nats_per_token()}, {"answer_accuracy", accuracy()}, {"tokens", tokens}};
}

ChatReport evaluate_chat(LanguageModel model, std::shared_ptr<const ChatSource> conversations,
                         int64_t padding_id, const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  model->eval();
  ChatReport report;
  LoaderSetup setup = one_pass(std::move(conversations), options.batch_size, options.workers);
  setup.collate.padding_id = padding_id;
  Loader loader(std::move(setup));
  while (auto loaded = loader.next()) {
    require_known_tokens(loaded->tokens_BT, model->config().vocab_size);
    const Batch batch = to_device(std::move(*loaded), options.device);
    ForwardContext context = options.context();
    context.segment_BT = batch.segment_BT;
    const at::Tensor hidden_BTD = model->hidden(
        batch.tokens_BT.slice(1, 0, -1), batch.length_B.clamp_max(batch.tokens_BT.size(1) - 1), context);
    const at::Tensor learned_BT = batch.target_BT.ge(0);
    const at::Tensor hidden_ND = hidden_BTD.index({learned_BT}),
                     target_N = batch.target_BT.index({learned_BT});
    report.nats += total_nats(model, hidden_ND, target_N);
    constexpr int64_t kChunk = 4096;
    for (int64_t start = 0; start < target_N.size(0); start += kChunk)
      report.correct += model->logits(hidden_ND.slice(0, start, start + kChunk))
                            .argmax(-1)
                            .eq(target_N.slice(0, start, start + kChunk))
                            .sum()
                            .item<int64_t>();
    report.tokens += target_N.size(0);
  }
  return report;
}

}  // namespace fathom
