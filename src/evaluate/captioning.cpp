// B rows, T tokens, N targets, D model width.
#include "evaluate/captioning.h"

#include <torch/torch.h>

#include <algorithm>
#include <limits>

#include "evaluate/language.h"
#include "evaluate/model_inputs.h"

namespace fathom {
namespace {

bool has_caption(const Record& record, size_t which) {
  return is_captioning(record) && which < record.captions.size();
}

/// Each prompt with its record's caption number `which` behind it, where there is one; on the host.
PromptedTokens with_caption(const CaptionedBatch& batch, const QuestionSource& source, size_t which) {
  const int64_t room = source.config().max_answer_tokens;
  PromptedTokens text{.tokens_BT = at::constant_pad_nd(batch.prompt.tokens_BT.to(at::kCPU), {0, room}, 0),
                      .length_B = batch.prompt.length_B.to(at::kCPU).clone(),
                      .prompt_length_B = batch.prompt.length_B.to(at::kCPU)};
  for (size_t b = 0; b < batch.records.size(); ++b) {
    if (!has_caption(*batch.records[b], which)) continue;
    const std::vector<int32_t> caption =
        source.encoding().continuation(batch.records[b]->captions[which], room);
    const auto row = static_cast<int64_t>(b);
    const int64_t start = text.length_B[row].item<int64_t>(),
                  end = start + static_cast<int64_t>(caption.size());
    text.tokens_BT[row].slice(0, start, end).copy_(torch::tensor(caption, at::kLong));
    text.length_B[row] = end;
  }
  text.tokens_BT = text.tokens_BT.slice(1, 0, text.length_B.max().item<int64_t>());
  return text;
}

}  // namespace

double CaptionFigures::mean_nats() const {
  if (tokens == 0) return std::numeric_limits<double>::quiet_NaN();
  return nats / static_cast<double>(tokens);
}

at::Tensor answer_targets(const PromptedTokens& text) {
  const at::Tensor next_BT = text.tokens_BT.slice(1, 1);
  const at::Tensor place_1T = at::arange(1, text.tokens_BT.size(1), next_BT.options()).unsqueeze(0);
  const at::Tensor learned_BT =
      place_1T.ge(text.prompt_length_B.unsqueeze(1)) & place_1T.lt(text.length_B.unsqueeze(1));
  return next_BT.masked_fill(~learned_BT, -1);
}

void add_captions(Fusion model, const CaptionedBatch& batch, const QuestionSource& source,
                  const ForwardContext& context, CaptionFigures& figures) {
  const torch::NoGradGuard no_grad;
  const at::Device device = batch.prompt.tokens_BT.device();
  for (size_t which = 0;; ++which) {
    const int64_t captions = std::count_if(batch.records.begin(), batch.records.end(),
                                           [&](const Record* record) { return has_caption(*record, which); });
    if (captions == 0) return;
    const PromptedTokens host = with_caption(batch, source, which);
    require_known_tokens(host.tokens_BT, model->config().text.vocab_size);
    const PromptedTokens text{.tokens_BT = host.tokens_BT.to(device),
                              .length_B = host.length_B.to(device),
                              .prompt_length_B = host.prompt_length_B.to(device)};
    const at::Tensor target_R = answer_targets(text).flatten();
    const at::Tensor place_N = target_R.ge(0).nonzero().squeeze(1);
    const at::Tensor hidden_RD = model->hidden(batch.percept, text, context).slice(1, 0, -1).flatten(0, 1);
    figures.nats +=
        total_nats(model->text(), hidden_RD.index_select(0, place_N), target_R.index_select(0, place_N));
    figures.tokens += place_N.size(0);
    figures.captions += captions;
  }
}

}  // namespace fathom
