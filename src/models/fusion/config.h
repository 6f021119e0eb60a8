// A language model that sees: how pictures enter it, and what answers look like.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "models/language/config.h"
#include "models/swin/config.h"

namespace fathom {

enum class FusionKind {
  kProgressive,   ///< cross-attention in the first layers, memory slots before the last
  kConcatPooled,  ///< the mean of the regions stands before the question as one token
  kConcatTokens,  ///< all regions stand before the question
  kQuestionOnly,  ///< no picture: what can be guessed from the question
};

const char* fusion_name(FusionKind kind);  ///< "progressive", …: as in recipes

/// How the places of regions begin; they are learned from there.
enum class PlaceCode { kLearned, kSinusoidal };

enum class AnswerKind { kClasses, kGenerated };

struct FusionConfig {
  FusionKind fusion = FusionKind::kProgressive;
  SwinConfig vision;
  LanguageModelConfig text;
  int64_t adapter_dim = 128;
  PlaceCode region_positions = PlaceCode::kLearned;
  int64_t early_layers = 2;
  int64_t late_layers = 1;
  int64_t memory_slots = 8;
  int64_t cross_heads = 4;
  int64_t cross_head_dim = 32;
  double initial_gate = 0.0;
  bool modality_weight = true;
  bool captions = false;
  AnswerKind answer = AnswerKind::kClasses;
  std::vector<std::string>
      answers;  ///< the classes, in the order of their ids; empty in a recipe: the data's

  bool sees() const { return fusion != FusionKind::kQuestionOnly; }
  bool progressive() const { return fusion == FusionKind::kProgressive; }
  /// Whether memory weighs the modalities.
  bool weighs() const { return progressive() && late_layers > 0 && modality_weight; }
  int64_t num_classes() const { return static_cast<int64_t>(answers.size()); }
  /// States that stand before the question.
  int64_t prefix_tokens() const;

  void fields(Fields& f);
  /// Errors (kConfig): early and late layers that overlap, an answer kind that the attention cannot give,
  /// captions where they have no way in.
  void validate() const;
};

/// Parameters of a model of this shape, without making one. REQUIRES text.vocab_size > 0 and, for classes,
/// answers.
int64_t parameter_count(const FusionConfig& config);

/// Floating-point operations (2 a multiply-add) of matrix products in one forward pass over `samples` of one
/// picture, a caption where the model reads them, and `questions`, of `tokens` each.
int64_t forward_flops(const FusionConfig& config, int64_t samples, int64_t tokens, int64_t questions = 1);

}  // namespace fathom
