#include "models/model_folder_read.h"

#include <filesystem>
#include <optional>

#include "base/error.h"
#include "models/folder_layout.h"
#include "models/language/hf_map.h"
#include "models/narrowed.h"
#include "models/swin/hf_map.h"
#include "models/tower_agreement.h"

namespace fathom {
namespace {

/// A configuration may ask for any amount of memory, so it gets little more than the weights can fill. What
/// differs less is listed by name once the model is made.
void require_weights(int64_t wanted, int64_t there, const std::string& config_path) {
  constexpr int64_t kSlack = 1 << 20;
  if (wanted > 2 * there + kSlack)
    fail(ErrorKind::kCheckpoint, "{}: a model of {} parameters, the weights beside it hold {}", config_path,
         wanted, there);
}

template <typename Model>
void place(Model& model, const LoadOptions& options) {
  model->to(options.device, options.dtype);
}

/// The weights of an encoder or a language model: by Hugging Face's names, and what it has beside those by
/// ours.
struct EncoderFiles {
  WeightFiles known;
  std::optional<WeightFiles> additions;

  static EncoderFiles open(const std::string& folder, bool has_additions) {
    EncoderFiles files{WeightFiles::open(folder), std::nullopt};
    if (has_additions) files.additions = WeightFiles::open(path_in(folder, "fathom.safetensors"));
    return files;
  }
  int64_t num_elements() const { return known.num_elements() + (additions ? additions->num_elements() : 0); }
  void load(LanguageModelImpl& model) const {
    load_weights(model, language_weight_map(model.config(), language_prefix(known)), known,
                 language_ignores(model.config()), Coverage::kMapped);
    load_additions(model);
  }
  void load(SwinImpl& model) const {
    load_weights(model, swin_weight_map_for(model.config(), known), known, swin_ignores, Coverage::kMapped);
    load_additions(model);
  }

 private:
  void load_additions(torch::nn::Module& model) const {
    // Of a layer that has no gate any more, since its density is 1, there may still be one.
    if (additions) load_weights(model, additions_map(model), *additions, is_addition, Coverage::kMapped);
  }
};

LanguageModelConfig language_config(const std::string& folder) {
  const std::string path = path_in(folder, "config.json");
  return language_config_from_hf(read_checkpoint_json(path), path);
}

SwinConfig vision_config(const std::string& folder) {
  const std::string path = path_in(folder, "config.json");
  auto config = swin_config_from_hf(read_checkpoint_json(path), path);
  const std::string preprocessor_path = path_in(folder, "preprocessor_config.json");
  if (std::filesystem::exists(preprocessor_path))
    read_preprocessing(read_checkpoint_json(preprocessor_path), preprocessor_path, config.preprocessing);
  return config;
}

AudioEncoderConfig audio_config(const std::string& folder) {
  const std::string path = path_in(folder, "config.json");
  Json json = read_checkpoint_json(path);
  if (json.is_object())
    std::erase_if(json.as_object(), [](const auto& key) { return key.first == "model_type"; });
  return with_error_kind(ErrorKind::kCheckpoint,
                         [&] { return read_config<AudioEncoderConfig>({.values = json, .source = path}); });
}

/// The shape of a model with towers. Ranges and relations are those of a recipe.
template <typename Config>
Config towers_config(const Json& record, const std::string& path, const char* what) {
  const Json* config = record.find("config");
  if (config == nullptr || !config->is_object())
    fail(ErrorKind::kCheckpoint, "{}: no \"config\" of a {}", path, what);
  const auto read = with_error_kind(ErrorKind::kCheckpoint,
                                    [&] { return read_config<Config>({.values = *config, .source = path}); });
  if (read.text.vocab_size < 1) fail(ErrorKind::kCheckpoint, "{}: config.text.vocab_size is missing", path);
  return read;
}

ClassifierConfig classifier_config(const Json& record, const std::string& path) {
  const Json* config = record.find("config");
  if (config == nullptr || !config->is_object())
    fail(ErrorKind::kCheckpoint, "{}: no \"config\" of a classifier", path);
  const auto read = with_error_kind(ErrorKind::kCheckpoint, [&] {
    return read_config<ClassifierConfig>({.values = *config, .source = path});
  });
  if (read.classes.size() < 2) fail(ErrorKind::kCheckpoint, "{}: config.classes: fewer than two", path);
  if (read.encoder == EncoderKind::kText && read.text.vocab_size < 1)
    fail(ErrorKind::kCheckpoint, "{}: config.text.vocab_size is missing", path);
  return read;
}

template <typename Model, typename Config>
std::vector<std::string> names_of(const Config& config) {
  return Model(narrowed(config))->named_parameters().keys();
}

/// `has_additions`: parameters that published models lack, which lie in a file of their own.
template <typename Model, typename Config>
Model read_encoder(const std::string& folder, const Config& config, bool has_additions,
                   const LoadOptions& options) {
  const auto files = EncoderFiles::open(folder, has_additions);
  require_weights(parameter_count(config), files.num_elements(), path_in(folder, "config.json"));
  Model model(config);
  place(model, options);
  files.load(*model);
  return model;
}

}  // namespace

LanguageModel read_language(const std::string& folder, const LoadOptions& options) {
  const auto config = language_config(folder);
  return read_encoder<LanguageModel>(folder, config, config.gate.adds_weights(), options);
}

Swin read_vision(const std::string& folder, const LoadOptions& options) {
  const auto config = vision_config(folder);
  return read_encoder<Swin>(folder, config, config.has_additions(), options);
}

AudioEncoder read_audio(const std::string& folder, const LoadOptions& options) {
  const auto config = audio_config(folder);
  const auto files = WeightFiles::open(folder);
  require_weights(parameter_count(config), files.num_elements(), path_in(folder, "config.json"));
  AudioEncoder model(config);
  place(model, options);
  load_weights(*model, identity_map(*model), files);
  return model;
}

DualTowerConfig dual_tower_config(const std::string& folder, const Json& record) {
  return towers_config<DualTowerConfig>(record, path_in(folder, "fathom.json"), "dual tower");
}

DualTower read_dual_tower(const std::string& folder, const Json& record, const LoadOptions& options) {
  const std::string record_path = path_in(folder, "fathom.json");
  const DualTowerConfig config = dual_tower_config(folder, record);
  const auto text = EncoderFiles::open(path_in(folder, "text"), config.text.gate.adds_weights()),
             vision = EncoderFiles::open(path_in(folder, "vision"), config.vision.has_additions());
  const auto bridge = WeightFiles::open(path_in(folder, "fathom.safetensors"));
  std::optional<WeightFiles> audio;
  if (config.audio_tower) audio = WeightFiles::open(path_in(folder, "audio"));
  require_weights(parameter_count(config),
                  text.num_elements() + vision.num_elements() + bridge.num_elements() +
                      (audio ? audio->num_elements() : 0),
                  record_path);
  require_agreement(path_in(folder, "text"), config.text, record_path);
  require_agreement(path_in(folder, "vision"), config.vision, record_path);
  if (audio) require_agreement(path_in(folder, "audio"), config.audio, record_path);
  DualTower model(config);
  place(model, options);
  text.load(*model->text());
  vision.load(*model->vision());
  if (audio) load_weights(*model->audio(), identity_map(*model->audio()), *audio);
  load_weights(*model, bridge_map(*model), bridge, {}, Coverage::kMapped);
  return model;
}

Fusion read_fusion(const std::string& folder, const Json& record, const LoadOptions& options) {
  const std::string record_path = path_in(folder, "fathom.json");
  const auto config = towers_config<FusionConfig>(record, record_path, "fusion model");
  const auto text = EncoderFiles::open(path_in(folder, "text"), config.text.gate.adds_weights());
  const auto bridge = WeightFiles::open(path_in(folder, "fathom.safetensors"));
  std::optional<EncoderFiles> vision;
  if (config.sees()) vision = EncoderFiles::open(path_in(folder, "vision"), config.vision.has_additions());
  require_weights(parameter_count(config),
                  text.num_elements() + bridge.num_elements() + (vision ? vision->num_elements() : 0),
                  record_path);
  require_agreement(path_in(folder, "text"), config.text, record_path);
  if (vision) require_agreement(path_in(folder, "vision"), config.vision, record_path);
  Fusion model(config);
  place(model, options);
  text.load(*model->text());
  if (vision) vision->load(*model->vision());
  load_weights(*model, bridge_map(*model), bridge, {}, Coverage::kMapped);
  return model;
}

Classifier read_classifier(const std::string& folder, const Json& record, const LoadOptions& options) {
  const std::string record_path = path_in(folder, "fathom.json");
  const auto config = classifier_config(record, record_path);
  const std::string encoder_path = path_in(folder, encoder_folder(config.encoder));
  const bool has_additions = config.encoder == EncoderKind::kImage  ? config.vision.has_additions()
                             : config.encoder == EncoderKind::kText ? config.text.gate.adds_weights()
                                                                    : false;  // ours by all its names
  const auto encoder = EncoderFiles::open(encoder_path, has_additions);
  const auto head = WeightFiles::open(path_in(folder, "fathom.safetensors"));
  require_weights(parameter_count(config), encoder.num_elements() + head.num_elements(), record_path);
  if (config.encoder == EncoderKind::kImage) require_agreement(encoder_path, config.vision, record_path);
  if (config.encoder == EncoderKind::kText) require_agreement(encoder_path, config.text, record_path);
  if (config.encoder == EncoderKind::kAudio) require_agreement(encoder_path, config.audio, record_path);
  Classifier model(config);
  place(model, options);
  if (config.encoder == EncoderKind::kImage) encoder.load(*model->vision());
  if (config.encoder == EncoderKind::kText) encoder.load(*model->text());
  if (config.encoder == EncoderKind::kAudio)
    load_weights(*model->audio(), identity_map(*model->audio()), encoder.known);
  load_weights(*model, bridge_map(*model), head, {}, Coverage::kMapped);
  return model;
}

std::vector<std::string> parameter_names(ModelKind kind, const std::string& folder, const Json& record) {
  const std::string record_path = path_in(folder, "fathom.json");
  switch (kind) {
    case ModelKind::kLanguage:
      return names_of<LanguageModel>(language_config(folder));
    case ModelKind::kSwin:
      return names_of<Swin>(vision_config(folder));
    case ModelKind::kAudio:
      return names_of<AudioEncoder>(audio_config(folder));
    case ModelKind::kDualTower:
      return names_of<DualTower>(towers_config<DualTowerConfig>(record, record_path, "dual tower"));
    case ModelKind::kFusion:
      return names_of<Fusion>(towers_config<FusionConfig>(record, record_path, "fusion model"));
    case ModelKind::kClassifier:
      return names_of<Classifier>(classifier_config(record, record_path));
  }
  return {};
}

}  // namespace fathom
