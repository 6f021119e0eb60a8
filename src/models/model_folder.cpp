#include "models/model_folder.h"

#include <filesystem>
#include <optional>

#include "base/error.h"
#include "data/chat/chat_template.h"
#include "data/tokenizer/tokenizer.h"
#include "models/adapter_folder.h"
#include "models/folder_swap.h"
#include "models/language/hf_map.h"
#include "models/lora.h"
#include "models/swin/hf_map.h"
#include "models/weight_map.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFormat = 1;
constexpr std::array<std::pair<const char*, ModelKind>, 6> kKinds = {
    {{"language", ModelKind::kLanguage},
     {"swin", ModelKind::kSwin},
     {"dual_tower", ModelKind::kDualTower},
     {"fusion", ModelKind::kFusion},
     {"audio", ModelKind::kAudio},
     {"classifier", ModelKind::kClassifier}}};
/// An audio encoder's config.json is ours: our configuration under our own name for the architecture.
constexpr const char* kAudioType = "fathom_audio";

std::string in(const std::string& folder, const char* name) {
  return (fs::path(folder) / name).string();
}

Json read_json(const std::string& path) {
  return with_error_kind(ErrorKind::kCheckpoint, [&] { return read_json_file(path); });
}

std::optional<Json> read_if_there(const std::string& path) {
  if (!fs::exists(path)) return std::nullopt;
  return read_json(path);
}

/// What a model keeps outside its encoders, by our own names.
WeightMap bridge_map(const torch::nn::Module& model) {
  WeightMap map;
  for (const auto& rule : identity_map(model))
    if (!rule.parameter.starts_with("vision.") && !rule.parameter.starts_with("text.") &&
        !rule.parameter.starts_with("audio."))
      map.push_back(rule);
  return map;
}

void write_record(const std::string& folder, ModelKind kind, Json config, const ModelExtras& extras) {
  Json record = Json::object();
  record["format"] = kFormat;
  record["kind"] = model_kind_name(kind);
  record["config"] = std::move(config);
  record["record"] = extras.record;
  write_json_file(in(folder, "fathom.json"), record);
}

void write_tokenizer(const std::string& folder, const ModelExtras& extras) {
  if (extras.tokenizer_json.empty()) return;
  write_file_atomically(in(folder, "tokenizer.json"), extras.tokenizer_json);
  Json json = Json::object();
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  if (const Json* name = extras.record.find("chat_template"))
    json["chat_template"] = chat_template_jinja(chat_template_of(name->as_string()));
  write_json_file(in(folder, "tokenizer_config.json"), json);
}

void write_language(const std::string& folder, const LanguageModel& model, const ModelExtras& extras) {
  fs::create_directories(folder);
  std::optional<int64_t> end_of_text;
  if (!extras.tokenizer_json.empty())
    end_of_text = Tokenizer::from_json(extras.tokenizer_json, "tokenizer.json").end_of_text();
  write_json_file(in(folder, "config.json"), language_config_to_hf(model->config(), end_of_text));
  save_tensors(in(folder, "model.safetensors"), foreign_weights(*model, language_weight_map(model->config())),
               {{"format", "pt"}});
  write_tokenizer(folder, extras);
}

void write_vision(const std::string& folder, const Swin& model) {
  fs::create_directories(folder);
  write_json_file(in(folder, "config.json"), swin_config_to_hf(model->config()));
  write_json_file(in(folder, "preprocessor_config.json"), preprocessing_to_hf(model->config()));
  save_tensors(in(folder, "model.safetensors"), foreign_weights(*model, swin_weight_map_hf(model->config())),
               {{"format", "pt"}});
}

void write_audio(const std::string& folder, const AudioEncoder& model) {
  fs::create_directories(folder);
  Json json = config_to_json(model->config());
  json["model_type"] = kAudioType;
  write_json_file(in(folder, "config.json"), json);
  save_tensors(in(folder, "model.safetensors"), foreign_weights(*model, identity_map(*model)));
}

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

LanguageModel read_language(const std::string& folder, const LoadOptions& options) {
  const std::string config_path = in(folder, "config.json");
  const auto config = language_config_from_hf(read_json(config_path), config_path);
  const auto files = WeightFiles::open(folder);
  require_weights(parameter_count(config), files.num_elements(), config_path);
  LanguageModel model(config);
  place(model, options);
  load_weights(*model, language_weight_map(model->config(), language_prefix(files)), files,
               language_ignores(model->config()));
  return model;
}

Swin read_vision(const std::string& folder, const LoadOptions& options) {
  const std::string config_path = in(folder, "config.json");
  auto config = swin_config_from_hf(read_json(config_path), config_path);
  const std::string preprocessor_path = in(folder, "preprocessor_config.json");
  if (const auto json = read_if_there(preprocessor_path))
    read_preprocessing(*json, preprocessor_path, config.preprocessing);
  const auto files = WeightFiles::open(folder);
  require_weights(parameter_count(config), files.num_elements(), config_path);
  Swin model(config);
  place(model, options);
  load_weights(*model, swin_weight_map_for(config, files), files, swin_ignores);
  return model;
}

AudioEncoder read_audio(const std::string& folder, const LoadOptions& options) {
  const std::string config_path = in(folder, "config.json");
  Json json = read_json(config_path);
  if (json.is_object())
    std::erase_if(json.as_object(), [](const auto& key) { return key.first == "model_type"; });
  const auto config = with_error_kind(ErrorKind::kCheckpoint, [&] {
    return read_config<AudioEncoderConfig>({.values = json, .source = config_path});
  });
  const auto files = WeightFiles::open(folder);
  require_weights(parameter_count(config), files.num_elements(), config_path);
  AudioEncoder model(config);
  place(model, options);
  load_weights(*model, identity_map(*model), files);
  return model;
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

DualTower read_dual_tower(const std::string& folder, const Json& record, const LoadOptions& options) {
  const std::string record_path = in(folder, "fathom.json");
  const auto config = towers_config<DualTowerConfig>(record, record_path, "dual tower");
  const auto text = WeightFiles::open(in(folder, "text")), vision = WeightFiles::open(in(folder, "vision")),
             bridge = WeightFiles::open(in(folder, "fathom.safetensors"));
  std::optional<WeightFiles> audio;
  if (config.hears) audio = WeightFiles::open(in(folder, "audio"));
  require_weights(parameter_count(config),
                  text.num_elements() + vision.num_elements() + bridge.num_elements() +
                      (audio ? audio->num_elements() : 0),
                  record_path);
  DualTower model(config);
  place(model, options);
  load_weights(*model->text(), language_weight_map(config.text, language_prefix(text)), text,
               language_ignores(config.text));
  load_weights(*model->vision(), swin_weight_map_for(config.vision, vision), vision, swin_ignores);
  if (audio) load_weights(*model->audio(), identity_map(*model->audio()), *audio);
  load_weights(*model, bridge_map(*model), bridge, {}, Coverage::kMapped);
  return model;
}

Fusion read_fusion(const std::string& folder, const Json& record, const LoadOptions& options) {
  const std::string record_path = in(folder, "fathom.json");
  const auto config = towers_config<FusionConfig>(record, record_path, "fusion model");
  const auto text = WeightFiles::open(in(folder, "text")),
             bridge = WeightFiles::open(in(folder, "fathom.safetensors"));
  std::optional<WeightFiles> vision;
  if (config.sees()) vision = WeightFiles::open(in(folder, "vision"));
  require_weights(parameter_count(config),
                  text.num_elements() + bridge.num_elements() + (vision ? vision->num_elements() : 0),
                  record_path);
  Fusion model(config);
  place(model, options);
  load_weights(*model->text(), language_weight_map(config.text, language_prefix(text)), text,
               language_ignores(config.text));
  if (vision)
    load_weights(*model->vision(), swin_weight_map_for(config.vision, *vision), *vision, swin_ignores);
  load_weights(*model, bridge_map(*model), bridge, {}, Coverage::kMapped);
  return model;
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

const char* encoder_folder(EncoderKind kind) {
  return kind == EncoderKind::kImage ? "vision" : kind == EncoderKind::kText ? "text" : "audio";
}

Classifier read_classifier(const std::string& folder, const Json& record, const LoadOptions& options) {
  const std::string record_path = in(folder, "fathom.json");
  const auto config = classifier_config(record, record_path);
  const auto encoder = WeightFiles::open(in(folder, encoder_folder(config.encoder))),
             head = WeightFiles::open(in(folder, "fathom.safetensors"));
  require_weights(parameter_count(config), encoder.num_elements() + head.num_elements(), record_path);
  Classifier model(config);
  place(model, options);
  if (config.encoder == EncoderKind::kImage)
    load_weights(*model->vision(), swin_weight_map_for(config.vision, encoder), encoder, swin_ignores);
  if (config.encoder == EncoderKind::kText)
    load_weights(*model->text(), language_weight_map(config.text, language_prefix(encoder)), encoder,
                 language_ignores(config.text));
  if (config.encoder == EncoderKind::kAudio)
    load_weights(*model->audio(), identity_map(*model->audio()), encoder);
  load_weights(*model, bridge_map(*model), head, {}, Coverage::kMapped);
  return model;
}

/// The record of `folder`, or one made from config.json for a folder that others wrote.
Json read_record(const std::string& folder) {
  if (!fs::is_directory(folder)) fail(ErrorKind::kCheckpoint, "{}: no such model folder", folder);
  if (auto record = read_if_there(in(folder, "fathom.json"))) return *record;
  const auto config = read_if_there(in(folder, "config.json"));
  if (!config) fail(ErrorKind::kCheckpoint, "{}: no model (neither fathom.json nor config.json)", folder);
  const Json* type = config->find("model_type");
  const std::string name = type != nullptr && type->is_string() ? type->as_string() : "";
  Json record = Json::object();
  if (name == "llama" || name == "qwen2")
    record["kind"] = "language";
  else if (name == "swin")
    record["kind"] = "swin";
  else if (name == kAudioType)
    record["kind"] = "audio";
  else
    fail(ErrorKind::kCheckpoint, "{}: model_type '{}' is not supported (llama, qwen2 and swin are)",
         in(folder, "config.json"), name);
  return record;
}

ModelKind kind_of(const Json& record, const std::string& folder) {
  const Json* name = record.find("kind");
  for (const auto& [known, kind] : kKinds)
    if (name != nullptr && *name == Json(known)) return kind;
  fail(ErrorKind::kCheckpoint, "{}: an unknown kind of model{}", in(folder, "fathom.json"),
       name != nullptr && name->is_string() ? " '" + name->as_string() + "'" : "");
}

/// The folder of the model that the adapters in `path` belong to.
std::string base_of(const std::string& path) {
  const std::string base = adapter_base(path);
  if (base.empty() || !fs::is_directory(base) || is_adapter_folder(base))
    fail(ErrorKind::kCheckpoint, "{}: adapters of a model in \"{}\", which is no model folder", path, base);
  return base;
}

}  // namespace

const char* model_kind_name(ModelKind kind) {
  return kKinds[static_cast<size_t>(kind)].first;
}

ModelKind model_kind(const std::string& path) {
  return is_adapter_folder(path) ? model_kind(base_of(path)) : kind_of(read_record(path), path);
}

torch::nn::Module& LoadedModel::module() {
  if (kind == ModelKind::kLanguage) return *language;
  if (kind == ModelKind::kSwin) return *vision;
  if (kind == ModelKind::kFusion) return *fusion;
  if (kind == ModelKind::kAudio) return *audio;
  if (kind == ModelKind::kClassifier) return *classifier;
  return *dual_tower;
}

WeightMap LoadedModel::foreign_names() {
  if (kind == ModelKind::kLanguage) return language_weight_map(language->config());
  if (kind == ModelKind::kSwin) return swin_weight_map_hf(vision->config());
  return identity_map(module());
}

void add_adapter_folder(LoadedModel& loaded, const std::string& folder, const std::string& name,
                        double weight) {
  read_adapters(loaded.module(), loaded.foreign_names(), folder, name);
  weigh_adapters(loaded.module(), name, weight);
}

namespace {

void read_tokenizer(const std::string& folder, LoadedModel& loaded) {
  const std::string path = in(folder, "tokenizer.json");
  if (fs::exists(path)) loaded.extras.tokenizer_json = read_file(path);
}

LoadedModel read_model(const std::string& path, const LoadOptions& options) {
  const Json record = read_record(path);
  LoadedModel loaded;
  loaded.kind = kind_of(record, path);
  if (loaded.kind == ModelKind::kLanguage) loaded.language = read_language(path, options);
  if (loaded.kind == ModelKind::kSwin) loaded.vision = read_vision(path, options);
  if (loaded.kind == ModelKind::kDualTower) loaded.dual_tower = read_dual_tower(path, record, options);
  if (loaded.kind == ModelKind::kFusion) loaded.fusion = read_fusion(path, record, options);
  if (loaded.kind == ModelKind::kAudio) loaded.audio = read_audio(path, options);
  if (loaded.kind == ModelKind::kClassifier) loaded.classifier = read_classifier(path, record, options);
  if (const Json* extra = record.find("record")) loaded.extras.record = *extra;
  read_tokenizer(path, loaded);
  return loaded;
}

/// The model that adapters belong to, with them added.
LoadedModel read_adapted(const std::string& path, const LoadOptions& options) {
  LoadedModel loaded = read_model(base_of(path), options);
  add_adapter_folder(loaded, path, "default", 1.0);
  merge_adapters(loaded.module());
  if (const auto record = read_if_there(in(path, "fathom.json")))
    if (const Json* extra = record->find("record")) loaded.extras.record = *extra;
  read_tokenizer(path, loaded);
  return loaded;
}

/// Puts a folder in place that `write` fills with the model, or the adapters alone.
template <typename Model, typename Write>
void save_folder(const std::string& path, Model model, ModelKind kind, const ModelExtras& extras,
                 const WeightMap& map, const Write& write) {
  replace_folder(path, [&](const std::string& folder) {
    if (extras.adapter_base.empty()) {
      const MergedWeights merged(*model);
      write(folder);
    } else {
      write_adapters(folder, *model, map,
                     {.base = fs::absolute(extras.adapter_base).lexically_normal().string(),
                      .causal_lm = kind == ModelKind::kLanguage});
      write_tokenizer(folder, extras);
    }
    write_record(folder, kind, config_to_json(model->config()), extras);
  });
}

}  // namespace

LoadedModel load_model_folder(const std::string& path, const LoadOptions& options) {
  return is_adapter_folder(path) ? read_adapted(path, options) : read_model(path, options);
}

void save_model_folder(const std::string& path, LanguageModel model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kLanguage, extras, language_weight_map(model->config()),
              [&](const std::string& folder) { write_language(folder, model, extras); });
}

void save_model_folder(const std::string& path, Swin model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kSwin, extras, swin_weight_map_hf(model->config()),
              [&](const std::string& folder) { write_vision(folder, model); });
}

void save_model_folder(const std::string& path, DualTower model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kDualTower, extras, identity_map(*model),
              [&](const std::string& folder) {
                write_language(in(folder, "text"), model->text(), extras);
                write_vision(in(folder, "vision"), model->vision());
                if (model->audio()) write_audio(in(folder, "audio"), model->audio());
                save_tensors(in(folder, "fathom.safetensors"), foreign_weights(*model, bridge_map(*model)));
                write_tokenizer(folder, extras);
              });
}

void save_model_folder(const std::string& path, Fusion model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kFusion, extras, identity_map(*model), [&](const std::string& folder) {
    write_language(in(folder, "text"), model->text(), extras);
    if (model->vision()) write_vision(in(folder, "vision"), model->vision());
    save_tensors(in(folder, "fathom.safetensors"), foreign_weights(*model, bridge_map(*model)));
    write_tokenizer(folder, extras);
  });
}

void save_model_folder(const std::string& path, AudioEncoder model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kAudio, extras, identity_map(*model),
              [&](const std::string& folder) { write_audio(folder, model); });
}

void save_model_folder(const std::string& path, Classifier model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kClassifier, extras, identity_map(*model),
              [&](const std::string& folder) {
                const std::string encoder = in(folder, encoder_folder(model->config().encoder));
                if (model->vision()) write_vision(encoder, model->vision());
                if (model->text()) write_language(encoder, model->text(), extras);
                if (model->audio()) write_audio(encoder, model->audio());
                save_tensors(in(folder, "fathom.safetensors"), foreign_weights(*model, bridge_map(*model)));
                write_tokenizer(folder, extras);
              });
}

}  // namespace fathom
