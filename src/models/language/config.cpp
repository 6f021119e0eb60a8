#include "models/language/config.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace fathom {

void LanguageModelConfig::fields(Fields& f) {
  f("vocab_size", vocab_size, "size of the vocabulary (0: the tokenizer's)", {.low = 0, .high = 1 << 24});
  f("dim", dim, "model width", {.low = 1, .high = 1 << 16});
  f("layers", layers, "number of blocks", {.low = 1, .high = 1024});
  f("heads", heads, "attention heads", {.low = 1, .high = 1024});
  f("kv_heads", kv_heads, "key-value heads (0: as many as heads)", {.low = 0, .high = 1024});
  f("head_dim", head_dim, "width of a head, even (0: dim / heads)", {.low = 0, .high = 1024});
  f("mlp_dim", mlp_dim, "inner width of the feed-forward layer (0: 8/3 of dim, in steps of 64)",
    {.low = 0, .high = 1 << 18});
  f("max_positions", max_positions, "longest sequence in tokens", {.low = 1, .high = 1 << 22});
  f("rope_theta", rope_theta, "base of the rotary frequencies", {.low = 1});
  f("norm_eps", norm_eps, "added to the mean square in norms", {.low = 0, .high = 0.1});
  f("tied_head", tied_head, "use the embedding as output head");
  f("qkv_bias", qkv_bias, "biases on query, key and value (Qwen2)");
  f.choice("attention", attention, "what a token may look at",
           {{"causal", AttentionKind::kCausal}, {"bidirectional", AttentionKind::kBidirectional}});
  f.choice("pool", pool, "which states stand for a text: its last token, their mean, its first token",
           {{"eos", Pool::kEos}, {"mean", Pool::kMean}, {"cls", Pool::kCls}});
  f("dropout", dropout, "share of elements dropped after the embedding and on residual branches",
    {.low = 0, .high = 0.95});
  f("drop_path", drop_path, "stochastic depth of the last block, growing from 0", {.low = 0, .high = 0.95});
  f.group("gate", gate, "which tokens each block computes");
}

void LanguageModelConfig::validate() const {
  if (head_dim == 0 && dim % heads != 0)
    fail(ErrorKind::kConfig, "dim = {} cannot be divided among heads = {}: change one, or give head_dim", dim,
         heads);
  if (head_size() % 2 != 0)
    fail(ErrorKind::kConfig,
         "heads of width {} are odd, but rotary positions turn pairs: change dim or heads", head_size());
  if (heads % num_kv_heads() != 0)
    fail(ErrorKind::kConfig, "heads = {} is no multiple of kv_heads = {}", heads, num_kv_heads());
  if (attention == AttentionKind::kCausal && !gate.is_causal())
    fail(ErrorKind::kConfig,
         "gate.kind = \"{}\" looks at later tokens, but attention = \"causal\" does not: take \"causal\"",
         gate_kind_name(gate.kind));
  gate.check_layers(layers);
}

int64_t parameter_count(const LanguageModelConfig& config) {
  const int64_t width = config.heads * config.head_size(),
                kv_width = config.num_kv_heads() * config.head_size();
  const int64_t attention =
      config.dim * (width + 2 * kv_width) + width * config.dim + (config.qkv_bias ? width + 2 * kv_width : 0);
  const int64_t block = attention + 3 * config.dim * config.mlp_size() + 2 * config.dim;
  const int64_t embeddings = config.vocab_size * config.dim * (config.tied_head ? 1 : 2);
  int64_t gates = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer)
    gates += config.gate.parameter_count(layer, config.dim, config.max_positions);
  return embeddings + config.layers * block + gates + config.dim;
}

int64_t forward_flops(const LanguageModelConfig& config, int64_t sequences, int64_t tokens) {
  const int64_t width = config.heads * config.head_size(),
                kv_width = config.num_kv_heads() * config.head_size();
  const auto attention = static_cast<double>(config.dim * (2 * width + 2 * kv_width));
  const auto mlp = static_cast<double>(3 * config.dim * config.mlp_size());
  const auto seen = static_cast<double>(config.attention == AttentionKind::kCausal ? tokens / 2 : tokens);
  double layers = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const double attends = config.gate.attention_share(layer), computes = config.gate.mlp_share(layer);
    layers += attends * (attention + 2 * static_cast<double>(width) * attends * seen) + computes * mlp +
              static_cast<double>(config.gate.products_a_token(layer, config.dim));
  }
  const double a_token = layers + static_cast<double>(config.dim * config.vocab_size);
  return static_cast<int64_t>(2 * static_cast<double>(sequences * tokens) * a_token);
}

}  // namespace fathom
