#include "runtime/generate.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

namespace fathom {
namespace {

void check_prompt(const LanguageModelConfig& config, std::span<const int32_t> prompt) {
  if (config.attention != AttentionKind::kCausal)
    fail(ErrorKind::kConfig,
         "this model sees text in both directions (attention = \"bidirectional\") and cannot generate");
  if (prompt.empty()) fail(ErrorKind::kRequest, "the prompt is empty");
  const auto size = static_cast<int64_t>(prompt.size());
  if (size >= config.max_positions)
    fail(ErrorKind::kRequest, "the prompt has {} tokens, but the model sees at most {}", size,
         config.max_positions);
  for (const int32_t id : prompt)
    if (id < 0 || id >= config.vocab_size)
      fail(ErrorKind::kRequest, "token {} of the prompt is outside the vocabulary of {}", id,
           config.vocab_size);
}

}  // namespace

Generation generate(LanguageModel model, std::span<const int32_t> prompt, const GenerateOptions& options,
                    const std::function<bool(int32_t)>& on_token) {
  check_prompt(model->config(), prompt);
  const torch::NoGradGuard no_grad;
  model->eval();
  const auto device = model->head_weight().device();
  const int64_t room = model->config().max_positions - static_cast<int64_t>(prompt.size());
  const int64_t limit = std::min(options.max_tokens, room);
  const ForwardContext context{.compute_dtype = options.compute_dtype};
  KeyValueCache cache = model->make_cache(1, static_cast<int64_t>(prompt.size()) + limit, context);
  Random random({static_cast<uint64_t>(options.seed)});
  Generation result{.reason =
                        room < options.max_tokens ? GenerationEnd::kContextFull : GenerationEnd::kMaxTokens};
  std::vector<int64_t> next(prompt.begin(), prompt.end());
  for (int64_t i = 0; i < limit; ++i) {
    const auto tokens_BT = torch::tensor(next, at::kLong).unsqueeze(0).to(device);
    const auto hidden_BTD = model->hidden(tokens_BT, {}, context, &cache);
    const auto logits = model->logits(hidden_BTD.select(1, -1)).to(at::kCPU, at::kFloat).contiguous();
    const int32_t token = sample_token({logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())},
                                       options.sampling, random);
    if (token == options.stop_token) {
      result.reason = GenerationEnd::kStopToken;
      break;
    }
    result.tokens.push_back(token);
    if (on_token && !on_token(token)) {
      result.reason = GenerationEnd::kMaxTokens;
      break;
    }
    next.assign(1, token);
  }
  return result;
}

}  // namespace fathom
