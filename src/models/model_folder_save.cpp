#include <filesystem>
#include <optional>

#include "data/chat/chat_template.h"
#include "data/tokenizer/tokenizer.h"
#include "models/adapter_folder.h"
#include "models/folder_layout.h"
#include "models/folder_swap.h"
#include "models/language/hf_map.h"
#include "models/lora.h"
#include "models/model_folder.h"
#include "models/swin/hf_map.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFormat = 1;

void write_record(const std::string& folder, ModelKind kind, Json config, const ModelExtras& extras) {
  Json record = Json::object();
  record["format"] = kFormat;
  record["kind"] = model_kind_name(kind);
  record["config"] = std::move(config);
  record["record"] = extras.record;
  write_json_file(path_in(folder, "fathom.json"), record);
}

void write_tokenizer(const std::string& folder, const ModelExtras& extras) {
  if (extras.tokenizer_json.empty()) return;
  write_file_atomically(path_in(folder, "tokenizer.json"), extras.tokenizer_json);
  Json json = Json::object();
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  if (const Json* name = extras.record.find("chat_template"))
    json["chat_template"] = chat_template_jinja(chat_template_of(name->as_string()));
  write_json_file(path_in(folder, "tokenizer_config.json"), json);
}

void write_additions(const std::string& folder, const torch::nn::Module& model) {
  if (const WeightMap map = additions_map(model); !map.empty())
    save_tensors(path_in(folder, "fathom.safetensors"), foreign_weights(model, map));
}

void write_language(const std::string& folder, const LanguageModel& model, const ModelExtras& extras) {
  fs::create_directories(folder);
  std::optional<int64_t> end_of_text;
  if (!extras.tokenizer_json.empty())
    end_of_text = Tokenizer::from_json(extras.tokenizer_json, "tokenizer.json").end_of_text();
  write_json_file(path_in(folder, "config.json"), language_config_to_hf(model->config(), end_of_text));
  save_tensors(path_in(folder, "model.safetensors"),
               foreign_weights(*model, language_weight_map(model->config())), {{"format", "pt"}});
  write_additions(folder, *model);
  write_tokenizer(folder, extras);
}

void write_vision(const std::string& folder, const Swin& model) {
  fs::create_directories(folder);
  write_json_file(path_in(folder, "config.json"), swin_config_to_hf(model->config()));
  write_json_file(path_in(folder, "preprocessor_config.json"), preprocessing_to_hf(model->config()));
  save_tensors(path_in(folder, "model.safetensors"),
               foreign_weights(*model, swin_weight_map_hf(model->config())), {{"format", "pt"}});
  write_additions(folder, *model);
}

void write_audio(const std::string& folder, const AudioEncoder& model) {
  fs::create_directories(folder);
  Json json = config_to_json(model->config());
  json["model_type"] = kAudioType;
  write_json_file(path_in(folder, "config.json"), json);
  save_tensors(path_in(folder, "model.safetensors"), foreign_weights(*model, identity_map(*model)));
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

void save_model_folder(const std::string& path, LanguageModel model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kLanguage, extras, language_weight_map(model->config()),
              [&](const std::string& folder) { write_language(folder, model, extras); });
}

void save_model_folder(const std::string& path, Swin model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kSwin, extras, swin_weight_map_hf(model->config()),
              [&](const std::string& folder) { write_vision(folder, model); });
}

void save_model_folder(const std::string& path, DualTower model, const ModelExtras& extras) {
  save_folder(
      path, model, ModelKind::kDualTower, extras, identity_map(*model), [&](const std::string& folder) {
        write_language(path_in(folder, "text"), model->text(), extras);
        write_vision(path_in(folder, "vision"), model->vision());
        if (model->audio()) write_audio(path_in(folder, "audio"), model->audio());
        save_tensors(path_in(folder, "fathom.safetensors"), foreign_weights(*model, bridge_map(*model)));
        write_tokenizer(folder, extras);
      });
}

void save_model_folder(const std::string& path, Fusion model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kFusion, extras, identity_map(*model), [&](const std::string& folder) {
    write_language(path_in(folder, "text"), model->text(), extras);
    if (model->vision()) write_vision(path_in(folder, "vision"), model->vision());
    save_tensors(path_in(folder, "fathom.safetensors"), foreign_weights(*model, bridge_map(*model)));
    write_tokenizer(folder, extras);
  });
}

void save_model_folder(const std::string& path, AudioEncoder model, const ModelExtras& extras) {
  save_folder(path, model, ModelKind::kAudio, extras, identity_map(*model),
              [&](const std::string& folder) { write_audio(folder, model); });
}

void save_model_folder(const std::string& path, Classifier model, const ModelExtras& extras) {
  save_folder(
      path, model, ModelKind::kClassifier, extras, identity_map(*model), [&](const std::string& folder) {
        const std::string encoder = path_in(folder, encoder_folder(model->config().encoder));
        if (model->vision()) write_vision(encoder, model->vision());
        if (model->text()) write_language(encoder, model->text(), extras);
        if (model->audio()) write_audio(encoder, model->audio());
        save_tensors(path_in(folder, "fathom.safetensors"), foreign_weights(*model, bridge_map(*model)));
        write_tokenizer(folder, extras);
      });
}

}  // namespace fathom
