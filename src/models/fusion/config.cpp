#include "models/fusion/config.h"

#include "base/error.h"

namespace fathom {
const char* fusion_name(FusionKind kind) {
  switch (kind) {
    case FusionKind::kProgressive:
      return "progressive";
    case FusionKind::kConcatPooled:
      return "concat_pooled";
    case FusionKind::kConcatTokens:
      return "concat_tokens";
    case FusionKind::kQuestionOnly:
      return "question_only";
  }
  return "";
}

void FusionConfig::fields(Fields& f) {
  f.choice("fusion", fusion, "how the picture enters the language model",
           {{"progressive", FusionKind::kProgressive},
            {"concat_pooled", FusionKind::kConcatPooled},
            {"concat_tokens", FusionKind::kConcatTokens},
            {"question_only", FusionKind::kQuestionOnly}});
  f.group("vision", vision, "the image encoder, a Swin transformer");
  f.group("text", text, "the language model");
  f("adapter_dim", adapter_dim,
    "inner width of the adapters that bring regions and captions to the language model's width; 0: one "
    "linear "
    "layer each instead",
    {.low = 0, .high = 1 << 14});
  f.choice("region_positions", region_positions,
           "how the code that tells a region's place begins, before it is learned: near nothing, or as sines "
           "and cosines of "
           "row and column",
           {{"learned", PlaceCode::kLearned}, {"sinusoidal", PlaceCode::kSinusoidal}});
  f("early_layers", early_layers, "progressive: first layers with gated cross-attention to the regions",
    {.low = 0});
  f("late_layers", late_layers, "progressive: last layers that attend to the memory slots", {.low = 0});
  f("memory_slots", memory_slots, "progressive: states that picture and question are gathered into",
    {.low = 1, .high = 1 << 12});
  f("cross_heads", cross_heads, "progressive: heads of a cross-attention", {.low = 1, .high = 1 << 10});
  f("cross_head_dim", cross_head_dim, "progressive: their size", {.low = 1, .high = 1 << 10});
  f("initial_gate", initial_gate,
    "progressive: first value of the cross-attentions' gates; 0 starts from the language model alone, which "
    "is for one "
    "that is trained already",
    {.low = 0, .high = 10});
  f("modality_weight", modality_weight,
    "progressive: what each modality brings into the memory slots is multiplied with the attention that the "
    "question pays it");
  f("captions", captions,
    "progressive: a caption of the picture is one more modality, read by the language model itself");
  f.choice("answer", answer, "one of the training data's answers, or text",
           {{"classes", AnswerKind::kClasses}, {"generated", AnswerKind::kGenerated}});
  f("answers", answers, "the answers to choose from; empty: all those of the training data");
}

int64_t FusionConfig::prefix_tokens() const {
  if (fusion == FusionKind::kConcatPooled) return 1;
  return fusion == FusionKind::kConcatTokens ? vision.num_regions() : 0;
}

void FusionConfig::validate() const {
  vision.validate();
  text.validate();
  if (progressive() && early_layers + late_layers > text.layers)
    fail(ErrorKind::kConfig,
         "model.early_layers: {} early and {} late layers are more than model.text.layers = {}", early_layers,
         late_layers, text.layers);
  if (region_positions == PlaceCode::kSinusoidal && text.dim % 4 != 0)
    fail(ErrorKind::kConfig,
         "model.region_positions: sinusoidal codes need model.text.dim divisible by 4, not {}", text.dim);
  if (captions && !progressive())
    fail(ErrorKind::kConfig, "model.captions: for model.fusion = \"progressive\" only");
  if (answer == AnswerKind::kGenerated && text.attention != AttentionKind::kCausal)
    fail(ErrorKind::kConfig, "model.answer: generated answers need model.text.attention = \"causal\"");
}

namespace {

int64_t cross_attention_parameters(const FusionConfig& config) {
  return 4 * config.text.dim * config.cross_heads * config.cross_head_dim;
}

int64_t progressive_parameters(const FusionConfig& config) {
  const int64_t dim = config.text.dim;
  const int64_t gated = cross_attention_parameters(config) + 2 * dim + 1;  // norms, gate
  int64_t total = (config.early_layers + config.late_layers) * gated;
  if (config.late_layers > 0)
    total += config.memory_slots * dim + cross_attention_parameters(config) + 2 * dim;
  if (config.weighs()) total += 2 * dim * config.cross_head_dim;
  return total;
}

int64_t bottleneck_parameters(int64_t in, int64_t inner, int64_t out) {
  if (inner == 0) return (in + 1) * out;
  return 2 * in + (in + 1) * inner + (inner + 1) * out;
}

int64_t adapter_parameters(const FusionConfig& config) {
  const int64_t out = config.text.dim;
  const int64_t positions =
      config.fusion == FusionKind::kConcatPooled ? 0 : config.vision.num_regions() * out;
  const int64_t caption = config.captions ? bottleneck_parameters(out, config.adapter_dim, out) : 0;
  return bottleneck_parameters(config.vision.output_dim(), config.adapter_dim, out) + positions + caption;
}

/// Queries and output for T tokens, keys and values for S states, and the two products between.
int64_t cross_attention_flops(const FusionConfig& config, int64_t tokens, int64_t states) {
  const int64_t width = config.cross_heads * config.cross_head_dim;
  return 4 * width * (config.text.dim * (tokens + states) + tokens * states);
}

int64_t progressive_flops(const FusionConfig& config, int64_t tokens, int64_t regions) {
  const int64_t dim = config.text.dim, captions = config.captions ? tokens : 0;
  const int64_t seen = regions + captions, all = seen + tokens;
  int64_t each = config.early_layers * cross_attention_flops(config, tokens, seen) +
                 config.late_layers * cross_attention_flops(config, tokens, config.memory_slots);
  if (config.late_layers > 0) each += cross_attention_flops(config, config.memory_slots, all);
  if (config.weighs()) each += 2 * config.cross_head_dim * (dim * (tokens + all) + tokens * all);
  return each;
}

int64_t num_seen_regions(const FusionConfig& config) {
  return config.fusion == FusionKind::kConcatPooled ? 1 : config.vision.num_regions();
}

int64_t bottleneck_flops(int64_t in, int64_t inner, int64_t out) {
  return 2 * (inner == 0 ? in * out : inner * (in + out));
}

/// What the questions about a picture share: it and its caption, encoded and adapted.
int64_t percept_flops(const FusionConfig& config, int64_t tokens) {
  if (!config.sees()) return 0;
  const int64_t inner = config.adapter_dim, out = config.text.dim;
  const int64_t flops = forward_flops(config.vision, 1) +
                        num_seen_regions(config) * bottleneck_flops(config.vision.output_dim(), inner, out);
  if (!config.captions) return flops;
  LanguageModelConfig headless = config.text;
  headless.vocab_size = 0;
  return flops + forward_flops(headless, 1, tokens) + tokens * bottleneck_flops(out, inner, out);
}

}  // namespace

int64_t parameter_count(const FusionConfig& config) {
  int64_t total = parameter_count(config.text);
  if (config.sees()) total += parameter_count(config.vision) + adapter_parameters(config);
  if (config.progressive()) total += progressive_parameters(config);
  if (config.answer == AnswerKind::kClasses) total += (config.text.dim + 1) * config.num_classes();
  return total;
}

int64_t forward_flops(const FusionConfig& config, int64_t samples, int64_t tokens, int64_t questions) {
  LanguageModelConfig text = config.text;
  if (config.answer == AnswerKind::kClasses) text.vocab_size = 0;
  int64_t each = forward_flops(text, 1, tokens + config.prefix_tokens());
  if (config.answer == AnswerKind::kClasses) each += 2 * config.text.dim * config.num_classes();
  if (config.progressive()) each += progressive_flops(config, tokens, num_seen_regions(config));
  return samples * (percept_flops(config, tokens) + questions * each);
}

}  // namespace fathom
