// Small fusion models, a question and a picture for them.
#pragma once

#include "model_fixture.h"
#include "models/fusion/model.h"

namespace fathom::testing {

inline FusionConfig small_fusion(FusionKind kind, AnswerKind answer = AnswerKind::kGenerated) {
  FusionConfig config;
  config.fusion = kind;
  config.vision = small_swin();
  config.text = small_language();
  config.text.layers = 3;
  config.adapter_dim = 10;
  config.early_layers = 1;
  config.late_layers = 1;
  config.memory_slots = 3;
  config.cross_heads = 2;
  config.cross_head_dim = 6;
  config.answer = answer;
  if (answer == AnswerKind::kClasses) config.answers = {"no", "red", "yes"};
  if (kind == FusionKind::kConcatTokens) config.text.max_positions = 48;
  return config;
}

inline Fusion make_fusion(const FusionConfig& config) {
  Fusion model(config);
  fill_by_formula(model);
  model->to(at::kDouble);
  return model;
}

constexpr int64_t kTokens = 9, kPrompt = 5;

inline PromptedTokens question(int64_t batch = 2) {
  return {formula_tokens({batch, kTokens}, 31), at::full({batch}, kTokens, at::kLong),
          at::full({batch}, kPrompt, at::kLong)};
}

inline at::Tensor picture(int64_t batch = 2, double offset = 0) {
  return at::arange(batch * 3 * 32 * 32, at::kDouble).mul(0.37).add(offset).sin().view({batch, 3, 32, 32});
}

inline at::Tensor answer_logits(Fusion& model, const at::Tensor& image, const PromptedTokens& text) {
  const at::NoGradGuard no_grad;
  return model->text()->logits(model->hidden(model->perceive(image), text));
}

inline double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

/// One that reads captions.
inline FusionConfig reading_fusion(AnswerKind answer = AnswerKind::kGenerated) {
  auto config = small_fusion(FusionKind::kProgressive, answer);
  config.captions = true;
  return config;
}

inline PromptedTokens caption(int64_t first = 3) {
  const auto tokens = formula_tokens({2, 6}, 31).add(first).remainder(31);
  return {tokens, at::tensor({6, 4}, at::kLong)};
}

}  // namespace fathom::testing
