#include "models/swin/hf_map.h"

#include "base/error.h"
#include "models/hf_config.h"

namespace fathom {
namespace {

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

SwinConfig read_sizes(const HfConfig& hf, const std::string& source) {
  SwinConfig config;
  config.image_size = hf.integer("image_size");
  config.patch_size = hf.integer("patch_size");
  config.dim = hf.integer("embed_dim");
  config.depths = hf.integers("depths");
  config.heads = hf.integers("num_heads");
  config.window = hf.integer("window_size");
  config.mlp_ratio = hf.number("mlp_ratio", config.mlp_ratio);
  config.qkv_bias = hf.flag("qkv_bias", config.qkv_bias);
  config.norm_eps = hf.number("layer_norm_eps", config.norm_eps);
  config.drop_path = hf.number("drop_path_rate", config.drop_path);
  config.dropout = hf.number("hidden_dropout_prob", config.dropout);
  const Json* json = hf.present("fathom");
  if (json == nullptr || !json->is_object()) return config;
  const HfConfig own(*json, source);
  config.local_mixing = own.integer("local_mixing", 0);
  config.mlp_mixing = own.integer("mlp_mixing", 0);
  config.convolution_stem = own.flag("convolution_stem", false);
  if (const Json* gate = own.present("gate"))
    config.gate = with_error_kind(
        ErrorKind::kCheckpoint, [&] { return read_config<GateConfig>({.values = *gate, .source = source}); });
  return config;
}

}  // namespace

SwinConfig swin_config_from_hf(const Json& json, const std::string& source) {
  const HfConfig hf(json, source);
  hf.require(hf.text("model_type", "") == "swin", "model_type '" + hf.text("model_type", "") + "'");
  hf.require(hf.text("hidden_act", "gelu") == "gelu", "activation '" + hf.text("hidden_act", "") + "'");
  hf.require(!hf.flag("use_absolute_embeddings", false), "use_absolute_embeddings");
  hf.require(hf.integer("num_channels", 3) == 3, "num_channels other than 3");
  // Ranges and relations are those of a recipe.
  return with_error_kind(ErrorKind::kCheckpoint, [&] {
    return read_config<SwinConfig>({.values = config_to_json(read_sizes(hf, source)), .source = source});
  });
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
  if (config.local_mixing > 0) json["fathom"]["local_mixing"] = config.local_mixing;
  if (config.mlp_mixing > 0) json["fathom"]["mlp_mixing"] = config.mlp_mixing;
  if (config.convolution_stem) json["fathom"]["convolution_stem"] = true;
  if (config.gate.kind != GateKind::kNone) json["fathom"]["gate"] = config_to_json(config.gate);
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

void read_preprocessing(const Json& json, const std::string& source, ImagePreprocessing& preprocessing) {
  const HfConfig hf(json, source);
  preprocessing.mean = hf.numbers("image_mean", preprocessing.mean);
  preprocessing.deviation = hf.numbers("image_std", preprocessing.deviation);
  try {
    preprocessing.validate();
  } catch (const Error& error) {
    fail(ErrorKind::kCheckpoint, "{}: image_mean and image_std: {}", source, error.what());
  }
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
