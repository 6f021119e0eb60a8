#include "models/swin/hf_map.h"

#include "base/error.h"

namespace fathom {
namespace {

std::vector<int64_t> integers(const Json& json) {
  std::vector<int64_t> values;
  for (const auto& item : json.as_array()) values.push_back(item.as_int());
  return values;
}

Json to_array(const std::vector<int64_t>& values) {
  Json array = Json::array();
  for (const int64_t value : values) array.push_back(value);
  return array;
}

Json to_array(const std::vector<double>& values) {
  Json array = Json::array();
  for (const double value : values) array.push_back(value);
  return array;
}

/// Adds the rules of `NAME.weight` and `NAME.bias`.
void add_affine(WeightMap& map, const std::string& ours, const std::string& theirs) {
  map.push_back({ours + ".weight", {{theirs + ".weight"}}});
  map.push_back({ours + ".bias", {{theirs + ".bias"}}});
}

void add_block_hf(WeightMap& map, const std::string& ours, const std::string& theirs,
                  const SwinConfig& config, int64_t dim) {
  add_affine(map, ours + "attention_norm", theirs + "layernorm_before");
  map.push_back(
      {ours + "attention.position_bias", {{theirs + "attention.self.relative_position_bias_table"}}});
  for (const char* kind : {".weight", ".bias"})
    if (kind == std::string(".weight") || config.qkv_bias)
      map.push_back({ours + "attention.qkv" + kind,
                     {{theirs + "attention.self.query" + kind, dim},
                      {theirs + "attention.self.key" + kind, dim},
                      {theirs + "attention.self.value" + kind, dim}}});
  add_affine(map, ours + "attention.output", theirs + "attention.output.dense");
  add_affine(map, ours + "mlp_norm", theirs + "layernorm_after");
  add_affine(map, ours + "mlp.up", theirs + "intermediate.dense");
  add_affine(map, ours + "mlp.down", theirs + "output.dense");
}

void add_block_timm(WeightMap& map, const std::string& ours, const std::string& theirs,
                    const SwinConfig& config) {
  add_affine(map, ours + "attention_norm", theirs + "norm1");
  map.push_back({ours + "attention.position_bias", {{theirs + "attn.relative_position_bias_table"}}});
  map.push_back({ours + "attention.qkv.weight", {{theirs + "attn.qkv.weight"}}});
  if (config.qkv_bias) map.push_back({ours + "attention.qkv.bias", {{theirs + "attn.qkv.bias"}}});
  add_affine(map, ours + "attention.output", theirs + "attn.proj");
  add_affine(map, ours + "mlp_norm", theirs + "norm2");
  add_affine(map, ours + "mlp.up", theirs + "mlp.fc1");
  add_affine(map, ours + "mlp.down", theirs + "mlp.fc2");
}

/// Calls `add(ours, stage, block)` for every block, and adds the mergings under `merge_name(stage)`.
template <typename AddBlock, typename MergeName>
void add_stages(WeightMap& map, const SwinConfig& config, const AddBlock& add, const MergeName& merge_name) {
  for (int64_t stage = 0; stage < config.num_stages(); ++stage) {
    const std::string ours = fmt::format("stages.{}.", stage);
    for (int64_t block = 0; block < config.depths[static_cast<size_t>(stage)]; ++block)
      add(fmt::format("{}blocks.{}.", ours, block), stage, block);
    if (stage + 1 == config.num_stages()) continue;
    add_affine(map, ours + "merge.norm", merge_name(stage) + ".norm");
    map.push_back({ours + "merge.reduction.weight", {{merge_name(stage) + ".reduction.weight"}}});
  }
}

SwinConfig read_sizes(const Json& json) {
  SwinConfig config;
  const auto optional = [&](const char* key) {
    const Json* value = json.find(key);
    return value != nullptr && !value->is_null() ? value : nullptr;
  };
  config.image_size = json.at("image_size").as_int();
  config.patch_size = json.at("patch_size").as_int();
  config.dim = json.at("embed_dim").as_int();
  config.depths = integers(json.at("depths"));
  config.heads = integers(json.at("num_heads"));
  config.window = json.at("window_size").as_int();
  if (const Json* value = optional("mlp_ratio")) config.mlp_ratio = value->as_double();
  if (const Json* value = optional("qkv_bias")) config.qkv_bias = value->as_bool();
  if (const Json* value = optional("layer_norm_eps")) config.norm_eps = value->as_double();
  if (const Json* value = optional("drop_path_rate")) config.drop_path = value->as_double();
  if (const Json* value = optional("hidden_dropout_prob")) config.dropout = value->as_double();
  return config;
}

}  // namespace

SwinConfig swin_config_from_hf(const Json& json, const std::string& source) {
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) fail(ErrorKind::kCheckpoint, "{}: {} is not supported", source, what);
  };
  const auto text = [&](const char* key, const std::string& fallback) {
    const Json* value = json.find(key);
    return value != nullptr && value->is_string() ? value->as_string() : fallback;
  };
  require(text("model_type", "") == "swin", "model_type '" + text("model_type", "") + "'");
  require(text("hidden_act", "gelu") == "gelu", "activation '" + text("hidden_act", "") + "'");
  const Json* absolute = json.find("use_absolute_embeddings");
  require(absolute == nullptr || *absolute == Json(false), "use_absolute_embeddings");
  const Json* channels = json.find("num_channels");
  require(channels == nullptr || *channels == Json(3), "num_channels other than 3");
  try {
    // Ranges and relations are those of a recipe.
    return read_config<SwinConfig>({.values = config_to_json(read_sizes(json)), .source = source});
  } catch (const Error& error) {
    fail(ErrorKind::kCheckpoint, "{}: {}", source, error.what());
  }
}

Json swin_config_to_hf(const SwinConfig& config) {
  Json json = Json::object();
  json["architectures"] = Json(Json::Array{"SwinModel"});
  json["model_type"] = "swin";
  json["image_size"] = config.image_size;
  json["patch_size"] = config.patch_size;
  json["num_channels"] = 3;
  json["embed_dim"] = config.dim;
  json["hidden_size"] = config.output_dim();
  json["depths"] = to_array(config.depths);
  json["num_heads"] = to_array(config.heads);
  json["window_size"] = config.window;
  json["mlp_ratio"] = config.mlp_ratio;
  json["qkv_bias"] = config.qkv_bias;
  json["hidden_act"] = "gelu";
  json["hidden_dropout_prob"] = config.dropout;
  json["attention_probs_dropout_prob"] = 0.0;
  json["drop_path_rate"] = config.drop_path;
  json["layer_norm_eps"] = config.norm_eps;
  json["use_absolute_embeddings"] = false;
  return json;
}

Json preprocessing_to_hf(const SwinConfig& config) {
  Json json = Json::object();
  json["image_processor_type"] = "ViTImageProcessor";
  json["do_resize"] = true;
  json["size"]["height"] = config.image_size;
  json["size"]["width"] = config.image_size;
  json["resample"] = 3;  // bicubic
  json["do_rescale"] = true;
  json["rescale_factor"] = 1.0 / 255.0;
  json["do_normalize"] = true;
  json["image_mean"] = to_array(config.preprocessing.mean);
  json["image_std"] = to_array(config.preprocessing.deviation);
  return json;
}

void read_preprocessing(const Json& json, ImagePreprocessing& preprocessing) {
  const auto read = [&](const char* key, std::vector<double>& values) {
    const Json* found = json.find(key);
    if (found == nullptr || !found->is_array()) return;
    values.clear();
    for (const auto& item : found->as_array()) values.push_back(item.as_double());
  };
  read("image_mean", preprocessing.mean);
  read("image_std", preprocessing.deviation);
  preprocessing.validate();
}

WeightMap swin_weight_map_hf(const SwinConfig& config, const std::string& prefix) {
  WeightMap map;
  add_affine(map, "patch_embed", prefix + "embeddings.patch_embeddings.projection");
  add_affine(map, "patch_embed.norm", prefix + "embeddings.norm");
  const auto layer = [&](int64_t stage) { return fmt::format("{}encoder.layers.{}.", prefix, stage); };
  add_stages(
      map, config,
      [&](const std::string& ours, int64_t stage, int64_t block) {
        add_block_hf(map, ours, fmt::format("{}blocks.{}.", layer(stage), block), config,
                     config.stage_dim(stage));
      },
      [&](int64_t stage) { return layer(stage) + "downsample"; });
  add_affine(map, "norm", prefix + "layernorm");
  return map;
}

WeightMap swin_weight_map_timm(const SwinConfig& config) {
  WeightMap map;
  add_affine(map, "patch_embed", "patch_embed.proj");
  add_affine(map, "patch_embed.norm", "patch_embed.norm");
  add_stages(
      map, config,
      [&](const std::string& ours, int64_t stage, int64_t block) {
        add_block_timm(map, ours, fmt::format("layers.{}.blocks.{}.", stage, block), config);
      },
      [](int64_t stage) { return fmt::format("layers.{}.downsample", stage + 1); });
  add_affine(map, "norm", "norm");
  return map;
}

WeightMap swin_weight_map_for(const SwinConfig& config, const WeightFiles& files) {
  if (files.tensors().contains("patch_embed.proj.weight")) return swin_weight_map_timm(config);
  const bool nested = files.tensors().contains("swin.embeddings.norm.weight");
  return swin_weight_map_hf(config, nested ? "swin." : "");
}

bool swin_ignores(const std::string& name) {
  return name.ends_with("relative_position_index") || name.ends_with("attn_mask") ||
         name.starts_with("classifier.") || name.starts_with("head.");
}

}  // namespace fathom
