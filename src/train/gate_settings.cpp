#include "train/gate_settings.h"

#include <fmt/format.h>

#include <algorithm>

namespace fathom {
namespace {

struct EncoderGate {
  std::string path;  ///< of its settings in the recipe
  const GateConfig& gate;
  bool there = true;     ///< whether the model has the encoder
  bool has_keys = true;  ///< a token that is skipped brings no key or value: not so inside windows
};

std::vector<EncoderGate> encoder_gates(const RecipeConfig& recipe) {
  switch (recipe.task) {
    case TaskKind::kContrastive: {
      const DualTowerConfig& model = recipe.dual_tower;
      return {{.path = "model.vision.gate", .gate = model.vision.gate, .has_keys = false},
              {.path = "model.text.gate", .gate = model.text.gate},
              {.path = "model.audio.gate", .gate = model.audio.gate, .there = model.audio_tower}};
    }
    case TaskKind::kAnswers: {
      const FusionConfig& model = recipe.fusion;
      return {
          {.path = "model.vision.gate", .gate = model.vision.gate, .there = model.sees(), .has_keys = false},
          {.path = "model.text.gate", .gate = model.text.gate}};
    }
    case TaskKind::kClassification: {
      const ClassifierConfig& model = recipe.classifier;
      return {
          {.path = "model.vision.gate",
           .gate = model.vision.gate,
           .there = model.encoder == EncoderKind::kImage,
           .has_keys = false},
          {.path = "model.text.gate", .gate = model.text.gate, .there = model.encoder == EncoderKind::kText},
          {.path = "model.audio.gate",
           .gate = model.audio.gate,
           .there = model.encoder == EncoderKind::kAudio}};
    }
    case TaskKind::kMaskedImage:
      return {{.path = "model.gate", .gate = recipe.vision.gate, .has_keys = false}};
    case TaskKind::kMaskedAudio:
      return {{.path = "model.gate", .gate = recipe.audio.gate}};
    case TaskKind::kLanguage:
    case TaskKind::kMaskedToken:
      return {{.path = "model.gate", .gate = recipe.language.gate}};
  }
  return {};
}

void add_encoder(const EncoderGate& encoder, IdleSettings& idle) {
  const GateConfig& gate = encoder.gate;
  const GateConfig usual;
  const std::string kind = fmt::format("kind = \"{}\"", gate_kind_name(gate.kind));
  const auto add = [&](bool found, const char* setting, const std::string& why) {
    idle.add(found, encoder.path + "." + setting, why);
  };
  const bool gates = gate.kind != GateKind::kNone;
  const bool part = gate.part != usual.part, density = gate.density != usual.density,
             inner = gate.inner != usual.inner;
  if (!encoder.there) return add(gates, "kind", "this model has no such encoder");
  if (!gates) {
    add(part, "part", kind + " gates no layer");
    add(density, "density", kind + " gates no layer");
    add(inner, "inner", kind + " gates no layer");
    return;
  }
  if (!gate.gates()) return add(true, "kind", "with a density of 1 no layer has a gate");
  const bool has_bottleneck = gate.has_weights() && gate.kind != GateKind::kPooled;
  add(inner && !has_bottleneck, "inner", kind + " has no bottleneck of a width of its own");
  add(density && !gate.layer_density.empty(), "density", "layer_density gives each layer's");
}

void add_training(const GateTrainingConfig& gating, const std::vector<EncoderGate>& encoders,
                  IdleSettings& idle) {
  const GateTrainingConfig usual;
  const auto any = [&](const auto& has) {
    return std::any_of(encoders.begin(), encoders.end(), [&](const EncoderGate& encoder) {
      return encoder.there && encoder.gate.gates() && has(encoder);
    });
  };
  const bool gates = any([](const EncoderGate&) { return true; });
  const bool learns = any([](const EncoderGate& encoder) { return encoder.gate.learns(); });
  const bool scores_values = any([](const EncoderGate& encoder) {
    return encoder.gate.learns() && encoder.has_keys && encoder.gate.part != GatedPart::kMlp;
  });
  const char* none = "no gate learns from the gradient of its score";
  idle.add(gating.explore != usual.explore && !learns, "gating.explore", none);
  idle.add(gating.rate != usual.rate && !learns, "gating.rate", none);
  idle.add(gating.damping != usual.damping && !learns, "gating.damping", none);
  idle.add(gating.dense_warmup != usual.dense_warmup && !gates, "gating.dense_warmup", "no layer has a gate");
  idle.add(gating.score_values != usual.score_values && !scores_values, "gating.score_values",
           "no gate that learns decides about keys and values");
}

}  // namespace

std::vector<std::string> idle_gate_settings(const RecipeConfig& recipe) {
  IdleSettings idle;
  const std::vector<EncoderGate> encoders = encoder_gates(recipe);
  for (const EncoderGate& encoder : encoders) add_encoder(encoder, idle);
  add_training(recipe.gating, encoders, idle);
  return idle.take();
}

}  // namespace fathom
