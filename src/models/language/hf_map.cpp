#include "models/language/hf_map.h"

#include "base/error.h"
#include "models/hf_config.h"

namespace fathom {
namespace {

/// transformers 5 nests the rotary settings, transformers 4 spreads them.
double read_rope_theta(const HfConfig& hf, const std::string& source) {
  const Json* nested = hf.present("rope_parameters");
  const Json* scaling = nested != nullptr ? nested : hf.present("rope_scaling");
  if (scaling != nullptr) {
    const HfConfig inner(*scaling, source);
    const std::string type = inner.text("rope_type", inner.text("type", "default"));
    hf.require(type == "default", "position scaling '" + type + "'");
    if (nested != nullptr) return inner.number("rope_theta", 10000.0);
  }
  return hf.number("rope_theta", 10000.0);
}

void read_own_settings(const HfConfig& own, const std::string& source, LanguageModelConfig& config) {
  const std::string attention = own.text("attention", "causal"), pool = own.text("pool", "eos");
  own.require(attention == "causal" || attention == "bidirectional", "attention '" + attention + "'");
  own.require(pool == "eos" || pool == "mean" || pool == "cls", "pool '" + pool + "'");
  config.attention = attention == "causal" ? AttentionKind::kCausal : AttentionKind::kBidirectional;
  config.pool = pool == "eos" ? Pool::kEos : pool == "mean" ? Pool::kMean : Pool::kCls;
  config.dropout = own.number("dropout", 0.0);
  config.drop_path = own.number("drop_path", 0.0);
  if (const Json* gate = own.present("gate"))
    config.gate = with_error_kind(
        ErrorKind::kCheckpoint, [&] { return read_config<GateConfig>({.values = *gate, .source = source}); });
}

}  // namespace

LanguageModelConfig language_config_from_hf(const Json& json, const std::string& source) {
  const HfConfig hf(json, source);
  const std::string type = hf.text("model_type", "");
  hf.require(type == "llama" || type == "qwen2", "model_type '" + type + "'");
  hf.require(hf.text("hidden_act", "silu") == "silu", "activation '" + hf.text("hidden_act", "") + "'");
  hf.require(!hf.flag("mlp_bias", false), "mlp_bias");
  hf.require(!hf.flag("attention_bias", false), "attention_bias");
  hf.require(!hf.flag("use_sliding_window", false), "use_sliding_window");

  LanguageModelConfig config;
  config.vocab_size = hf.integer("vocab_size");
  hf.require(config.vocab_size > 0, "a vocab_size of " + std::to_string(config.vocab_size));
  config.dim = hf.integer("hidden_size");
  config.layers = hf.integer("num_hidden_layers");
  config.heads = hf.integer("num_attention_heads");
  config.kv_heads = hf.integer("num_key_value_heads", config.heads);
  config.head_dim = hf.integer("head_dim", 0);
  config.mlp_dim = hf.integer("intermediate_size");
  config.max_positions = hf.integer("max_position_embeddings", 2048);
  config.rope_theta = read_rope_theta(hf, source);
  config.norm_eps = hf.number("rms_norm_eps", 1e-6);
  config.tied_head = hf.flag("tie_word_embeddings", false);
  config.qkv_bias = type == "qwen2";
  if (const Json* own = hf.present("fathom")) read_own_settings(HfConfig(*own, source), source, config);
  // Ranges and relations are those of a recipe.
  return with_error_kind(ErrorKind::kCheckpoint, [&] {
    return read_config<LanguageModelConfig>({.values = config_to_json(config), .source = source});
  });
}

Json language_config_to_hf(const LanguageModelConfig& config, std::optional<int64_t> end_of_text) {
  Json json = Json::object();
  json["architectures"] = Json(Json::Array{config.qkv_bias ? "Qwen2ForCausalLM" : "LlamaForCausalLM"});
  json["model_type"] = config.qkv_bias ? "qwen2" : "llama";
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.dim;
  json["num_hidden_layers"] = config.layers;
  json["num_attention_heads"] = config.heads;
  json["num_key_value_heads"] = config.num_kv_heads();
  json["head_dim"] = config.head_size();
  json["intermediate_size"] = config.mlp_size();
  json["max_position_embeddings"] = config.max_positions;
  json["rope_theta"] = config.rope_theta;
  json["rms_norm_eps"] = config.norm_eps;
  json["tie_word_embeddings"] = config.tied_head;
  json["hidden_act"] = "silu";
  json["attention_dropout"] = 0.0;
  if (!config.qkv_bias) {
    json["attention_bias"] = false;
    json["mlp_bias"] = false;
  }
  json["bos_token_id"] = Json();
  json["eos_token_id"] = end_of_text ? Json(*end_of_text) : Json();
  Json& own = json["fathom"];
  own["attention"] = config.attention == AttentionKind::kCausal ? "causal" : "bidirectional";
  own["pool"] = config.pool == Pool::kEos ? "eos" : config.pool == Pool::kMean ? "mean" : "cls";
  own["dropout"] = config.dropout;
  own["drop_path"] = config.drop_path;
  if (config.gate.kind != GateKind::kNone) own["gate"] = config_to_json(config.gate);
  return json;
}

WeightMap language_weight_map(const LanguageModelConfig& config, const std::string& prefix) {
  const int64_t width = config.heads * config.head_size(),
                kv_width = config.num_kv_heads() * config.head_size();
  WeightMap map = {{"embedding", {{prefix + "embed_tokens.weight"}}}};
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string ours = fmt::format("blocks.{}.", layer);
    const std::string theirs = fmt::format("{}layers.{}.", prefix, layer);
    const auto qkv = [&](const std::string& kind) {
      map.push_back({ours + "attention.qkv." + kind,
                     {{theirs + "self_attn.q_proj." + kind, width},
                      {theirs + "self_attn.k_proj." + kind, kv_width},
                      {theirs + "self_attn.v_proj." + kind, kv_width}}});
    };
    map.push_back({ours + "attention_norm.weight", {{theirs + "input_layernorm.weight"}}});
    qkv("weight");
    if (config.qkv_bias) qkv("bias");
    map.push_back({ours + "attention.output.weight", {{theirs + "self_attn.o_proj.weight"}}});
    map.push_back({ours + "mlp_norm.weight", {{theirs + "post_attention_layernorm.weight"}}});
    map.push_back({ours + "mlp.gate_up.weight",
                   {{theirs + "mlp.gate_proj.weight", config.mlp_size()},
                    {theirs + "mlp.up_proj.weight", config.mlp_size()}}});
    map.push_back({ours + "mlp.down.weight", {{theirs + "mlp.down_proj.weight"}}});
  }
  map.push_back({"norm.weight", {{prefix + "norm.weight"}}});
  if (!config.tied_head) map.push_back({"head", {{"lm_head.weight"}}});
  return map;
}

std::string language_prefix(const WeightFiles& files) {
  return files.tensors().contains("embed_tokens.weight") ? "" : "model.";
}

IgnoreRule language_ignores(const LanguageModelConfig& config) {
  return [tied = config.tied_head](const std::string& name) {
    return name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
  };
}

}  // namespace fathom
