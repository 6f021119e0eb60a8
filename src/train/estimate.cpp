#include "train/estimate.h"

#include <algorithm>

#include "train/fp8_memory.h"
#include "train/session_teachers.h"
#include "train/task/contrastive_flops.h"
#include "train/task/masked_token.h"

namespace fathom {
namespace {

constexpr double kReachedShare = 0.4;
constexpr double kBlockNumbers = 17;  ///< that a transformer block keeps per token and unit of width

/// The same of convolutions beside a Swin's blocks: what they read.
double convolution_numbers(const SwinConfig& config) {
  return (config.local_mixing > 0 ? 1 : 0) + (config.mlp_mixing > 0 ? config.mlp_ratio : 0);
}

/// Numbers of width that blocks keep for one sample, times their number.
double kept_widths(const LanguageModelConfig& config, int64_t tokens) {
  return static_cast<double>(config.layers * config.dim * tokens);
}
/// `inside`: of blocks, not of their inputs alone.
double kept_widths(const SwinConfig& config, bool inside) {
  double sum = 0;
  for (int64_t stage = 0; stage < config.num_stages(); ++stage)
    sum += static_cast<double>(config.depths[static_cast<size_t>(stage)] * config.stage_dim(stage) *
                               config.stage_side(stage) * config.stage_side(stage));
  return inside ? sum * (1 + convolution_numbers(config) / kBlockNumbers) : sum;
}

double kept_widths(const AudioEncoderConfig& config, int64_t frames) {
  return static_cast<double>(config.layers * config.dim * config.num_moments(frames) * config.groups());
}

double kept_widths(const ClassifierConfig& config, int64_t length, bool inside) {
  if (config.encoder == EncoderKind::kImage) return kept_widths(config.vision, inside);
  if (config.encoder == EncoderKind::kText) return kept_widths(config.text, length);
  return kept_widths(config.audio, length);
}

struct SampleCost {
  int64_t parameters;
  double flops;
  double activation_bytes;
};

SampleCost cost_of_sample(const RecipeConfig& recipe) {
  const bool inside = !recipe.training.checkpoint_blocks;
  const double per_width =
      static_cast<double>(c10::elementSize(product_type(recipe.precision))) * (inside ? kBlockNumbers : 1);
  if (recipe.task == TaskKind::kLanguage) {
    const LanguageModelConfig& model = recipe.language;
    return {parameter_count(model), 3.0 * static_cast<double>(forward_flops(model, 1, model.max_positions)),
            per_width * kept_widths(model, model.max_positions)};
  }
  if (recipe.task == TaskKind::kAnswers) {
    const FusionConfig& model = recipe.fusion;
    const int64_t tokens = recipe.question_tokens(), seen = model.prefix_tokens() + tokens;
    const int64_t questions = recipe.data.pairing.questions_per_image;
    const double vision = model.sees() ? kept_widths(model.vision, inside) : 0;
    return {parameter_count(model), 3.0 * static_cast<double>(forward_flops(model, 1, tokens, questions)),
            per_width * (vision + static_cast<double>(questions) * kept_widths(model.text, seen))};
  }
  if (recipe.task == TaskKind::kMaskedImage)
    return {parameter_count(recipe.vision), 3.0 * static_cast<double>(forward_flops(recipe.vision, 1)),
            per_width * kept_widths(recipe.vision, inside)};
  if (recipe.task == TaskKind::kMaskedAudio) {
    const int64_t frames = recipe.data.inputs.audio.max_frames();
    return {parameter_count(recipe.audio), 3.0 * static_cast<double>(forward_flops(recipe.audio, 1, frames)),
            per_width * kept_widths(recipe.audio, frames)};
  }
  if (recipe.task == TaskKind::kMaskedToken) {
    const LanguageModelConfig& model = recipe.language;
    const int64_t tokens = recipe.masked_row_tokens();
    return {parameter_count(model), masked_token_flops(model, recipe.masked_token, tokens),
            per_width * kept_widths(model, tokens)};
  }
  if (recipe.task == TaskKind::kClassification) {
    const ClassifierConfig& model = recipe.classifier;
    const int64_t length = model.encoder == EncoderKind::kText ? recipe.data.inputs.text.max_tokens
                                                               : recipe.data.inputs.audio.max_frames();
    return {parameter_count(model), 3.0 * static_cast<double>(forward_flops(model, length)),
            per_width * kept_widths(model, length, inside)};
  }
  const DualTowerConfig& model = recipe.dual_tower;
  const ContrastiveSample sample = {.views = recipe.data.pairing.views_per_image,
                                    .captions = recipe.data.pairing.captions_per_image,
                                    .tokens = recipe.data.inputs.text.max_tokens,
                                    .frames = model.audio_tower ? recipe.data.inputs.audio.max_frames() : 0};
  return {parameter_count(model),
          contrastive_flops(model, recipe.contrastive, sample, teacher_shapes(recipe)),
          per_width * (static_cast<double>(sample.views) * kept_widths(model.vision, inside) +
                       static_cast<double>(sample.captions) * kept_widths(model.text, sample.tokens) +
                       (model.audio_tower ? kept_widths(model.audio, sample.frames) : 0))};
}

/// Weights of models that are learned from, and their copies.
int64_t teacher_bytes(const RecipeConfig& recipe) {
  if (recipe.task != TaskKind::kContrastive) return 0;
  int64_t each = static_cast<int64_t>(c10::elementSize(parameter_type(recipe.precision))), sum = 0;
  if (const auto type = copy_type(recipe.precision)) each += static_cast<int64_t>(c10::elementSize(*type));
  for (const DualTowerConfig& teacher : teacher_shapes(recipe)) sum += each * parameter_count(teacher);
  return sum;
}

}  // namespace

Json Estimate::to_json() const {
  Json json = Json::object();
  json["parameters"] = parameters;
  json["step_flops"] = step_flops;
  json["steps"] = steps;
  json["state_bytes"] = state_bytes;
  json["activation_bytes"] = activation_bytes;
  json["device_bytes"] = device_bytes;
  json["estimated_seconds"] = seconds;
  return json;
}

Estimate estimate_run(const RecipeConfig& recipe, int64_t batches_per_epoch, int64_t num_ranks,
                      DeviceRuntime& runtime) {
  const SampleCost cost = cost_of_sample(recipe);
  const TrainingConfig& training = recipe.training;
  const int64_t share = training.batch_size / num_ranks;
  const int64_t micro = training.micro_batch_size > 0 ? std::min(training.micro_batch_size, share) : share;
  const int64_t copies = 4 + (training.average_decay > 0 ? 1 : 0);  // weight, gradient, two moments
  Estimate estimate;
  estimate.parameters = cost.parameters;
  estimate.step_flops = cost.flops * static_cast<double>(training.batch_size);
  estimate.steps = num_steps(training, batches_per_epoch);
  estimate.state_bytes =
      copies * cost.parameters * static_cast<int64_t>(c10::elementSize(parameter_type(recipe.precision)));
  Fp8Memory fp8;
  if (const auto products = fp8_products_of(recipe.precision, recipe.fp8, runtime.device()))
    fp8 = fp8_memory(recipe, micro, *products);
  if (const auto type = copy_type(recipe.precision); type && training.weight_copies)
    estimate.state_bytes += (cost.parameters - fp8.weights) * static_cast<int64_t>(c10::elementSize(*type));
  estimate.state_bytes += 2 * fp8.weights + teacher_bytes(recipe);
  estimate.activation_bytes =
      static_cast<int64_t>(cost.activation_bytes * static_cast<double>(micro)) + fp8.activation_bytes;
  estimate.device_bytes = runtime.memory().total_bytes;
  const double speed = peak_flops(recipe.precision, runtime) * static_cast<double>(num_ranks);
  if (speed > 0)
    estimate.seconds = static_cast<double>(estimate.steps) * estimate.step_flops / (kReachedShare * speed);
  return estimate;
}

}  // namespace fathom
