#include "models/model_folder.h"

#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "models/adapter_folder.h"
#include "models/folder_layout.h"
#include "models/language/hf_map.h"
#include "models/lora.h"
#include "models/model_folder_read.h"
#include "models/swin/hf_map.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::pair<const char*, ModelKind>, 6> kKinds = {
    {{"language", ModelKind::kLanguage},
     {"swin", ModelKind::kSwin},
     {"dual_tower", ModelKind::kDualTower},
     {"fusion", ModelKind::kFusion},
     {"audio", ModelKind::kAudio},
     {"classifier", ModelKind::kClassifier}}};

std::optional<Json> read_if_there(const std::string& path) {
  if (!fs::exists(path)) return std::nullopt;
  return read_checkpoint_json(path);
}

/// The record of `folder`, or one made from config.json for a folder that others wrote.
Json read_record(const std::string& folder) {
  if (!fs::is_directory(folder)) fail(ErrorKind::kCheckpoint, "{}: no such model folder", folder);
  if (auto record = read_if_there(path_in(folder, "fathom.json"))) return *record;
  const auto config = read_if_there(path_in(folder, "config.json"));
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
         path_in(folder, "config.json"), name);
  return record;
}

ModelKind kind_of(const Json& record, const std::string& folder) {
  const Json* name = record.find("kind");
  if (name == nullptr)
    fail(ErrorKind::kCheckpoint, "{}: no \"kind\" of model", path_in(folder, "fathom.json"));
  for (const auto& [known, kind] : kKinds)
    if (*name == Json(known)) return kind;
  fail(ErrorKind::kCheckpoint, "{}: an unknown kind of model {}", path_in(folder, "fathom.json"),
       name->dump());
}

/// The folder of the model that the adapters in `path` belong to.
std::string base_of(const std::string& path) {
  const std::string base = adapter_base(path);
  if (base.empty() || !fs::is_directory(base) || is_adapter_folder(base))
    fail(ErrorKind::kCheckpoint, "{}: adapters of a model in \"{}\", which is no model folder", path, base);
  return base;
}

void read_tokenizer(const std::string& folder, LoadedModel& loaded) {
  const std::string path = path_in(folder, "tokenizer.json");
  if (!fs::exists(path)) return;
  loaded.extras.tokenizer_json = read_file(path);
  if (loaded.extras.tokenizer_json.empty()) fail(ErrorKind::kCheckpoint, "{}: an empty file", path);
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
  if (const auto record = read_if_there(path_in(path, "fathom.json")))
    if (const Json* extra = record->find("record")) loaded.extras.record = *extra;
  read_tokenizer(path, loaded);
  return loaded;
}

}  // namespace

const char* model_kind_name(ModelKind kind) {
  return kKinds[static_cast<size_t>(kind)].first;
}

ModelKind model_kind(const std::string& path) {
  return is_adapter_folder(path) ? model_kind(base_of(path)) : kind_of(read_record(path), path);
}

std::vector<std::string> model_parameter_names(const std::string& path) {
  if (is_adapter_folder(path)) return model_parameter_names(base_of(path));
  const Json record = read_record(path);
  return parameter_names(kind_of(record, path), path, record);
}

DualTowerConfig dual_tower_shape(const std::string& path) {
  if (is_adapter_folder(path)) return dual_tower_shape(base_of(path));
  const Json record = read_record(path);
  if (const ModelKind kind = kind_of(record, path); kind != ModelKind::kDualTower)
    fail(ErrorKind::kCheckpoint, "{} holds a {} model, not a dual tower", path, model_kind_name(kind));
  return dual_tower_config(path, record);
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

LoadedModel load_model_folder(const std::string& path, const LoadOptions& options) {
  return is_adapter_folder(path) ? read_adapted(path, options) : read_model(path, options);
}

}  // namespace fathom
