#include "models/language/model.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "kernels/embedding.h"
#include "kernels/linear.h"
#include "nn/decode_step.h"
#include "nn/residual.h"

namespace fathom {
namespace {

BlockOptions block_options(const LanguageModelConfig& config, int64_t layer) {
  // Two branches a layer add up in the residual stream; their initial variance shrinks accordingly.
  const double output_deviation = 0.02 / std::sqrt(2.0 * static_cast<double>(config.layers));
  return {.attention = {.dim = config.dim,
                        .heads = config.heads,
                        .kv_heads = config.num_kv_heads(),
                        .head_dim = config.head_size(),
                        .qkv_bias = config.qkv_bias,
                        .output_deviation = output_deviation},
          .mlp = {.dim = config.dim, .inner = config.mlp_size(), .output_deviation = output_deviation},
          .gate = {.config = config.gate,
                   .dim = config.dim,
                   .layer = layer,
                   .index = layer,
                   .places = config.max_positions,
                   .norm_eps = config.norm_eps},
          .norm_eps = config.norm_eps,
          .dropout = config.dropout,
          .drop_path = drop_path_at(layer, config.layers, config.drop_path),
          .layer = layer};
}

}  // namespace

LanguageModelImpl::LanguageModelImpl(const LanguageModelConfig& config) : config_(config) {
  config.validate();
  if (config.vocab_size < 1) fail(ErrorKind::kConfig, "a language model needs vocab_size");
  embedding_VD_ = register_parameter("embedding", at::empty({config.vocab_size, config.dim}));
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (int64_t layer = 0; layer < config.layers; ++layer)
    blocks_->push_back(Block(block_options(config, layer)));
  norm_ = register_module("norm", RMSNorm(config.dim, config.norm_eps));
  if (!config.tied_head) head_VD_ = register_parameter("head", at::empty({config.vocab_size, config.dim}));
  rope_ = Rope(config.max_positions, config.head_size(), config.rope_theta);
}

at::Tensor LanguageModelImpl::embed(const at::Tensor& tokens_BT, const ForwardContext& context) const {
  const at::ScalarType type = context.compute_dtype.value_or(embedding_VD_.scalar_type());
  const auto x_BTD = kernels::embedding(embedding_VD_, tokens_BT, type, context.rooms);
  return dropout(x_BTD, config_.dropout, 2 * config_.layers, context);
}

at::Tensor LanguageModelImpl::hidden(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                                     const ForwardContext& context, KeyValueCache* cache,
                                     const Conditioning& conditioning) {
  FATHOM_CHECK(tokens_BT.dim() == 2 && tokens_BT.scalar_type() == at::kLong,
               "[language] expected int64 tokens [B, T], got {} dimensions of {}", tokens_BT.dim(),
               c10::toString(tokens_BT.scalar_type()));
  auto x_BTD = embed(tokens_BT, context);
  int64_t prefix = 0;
  at::Tensor seen_B = length_B;
  if (conditioning.prefix_BPD.defined()) {
    prefix = conditioning.prefix_BPD.size(1);
    x_BTD = at::cat({conditioning.prefix_BPD.to(x_BTD.scalar_type()), x_BTD}, 1);
    if (length_B.defined()) seen_B = length_B + prefix;
  }
  const bool causal = config_.attention == AttentionKind::kCausal;
  auto view = make_attention_view(x_BTD, seen_B, causal, rope_, cache);
  if (context.segment_BT.defined()) separate_segments(view, context.segment_BT);
  const bool continues =
      cache != nullptr && tokens_BT.size(1) == 1 && prefix == 0 && !conditioning.before_block;
  const at::Tensor at_once_BTD = continues ? decoded(all_blocks(), x_BTD, view, context) : at::Tensor();
  Residual stream = {at_once_BTD.defined() ? at_once_BTD : x_BTD};
  const int64_t layers = at_once_BTD.defined() ? 0 : config_.layers;
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (conditioning.before_block) stream = {conditioning.before_block(layer, stream.sum())};
    stream = through_block(*blocks_[static_cast<size_t>(layer)]->as<Block>(), stream, view, context);
  }
  if (cache != nullptr) cache->advance(x_BTD.size(1));
  return prefix > 0 ? norm_(stream.sum().slice(1, prefix)) : normed_sum(stream, norm_).y;
}

std::vector<Block> LanguageModelImpl::all_blocks() const {
  std::vector<Block> blocks;
  for (const auto& module : *blocks_) blocks.emplace_back(std::dynamic_pointer_cast<BlockImpl>(module));
  return blocks;
}

at::Tensor LanguageModelImpl::logits(const at::Tensor& hidden_BTD, const ForwardContext& context) const {
  return kernels::linear(hidden_BTD, head_weight(), {}, context.linear_types(hidden_BTD, Feeds::kLoss));
}

at::Tensor LanguageModelImpl::forward(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                                      const ForwardContext& context, KeyValueCache* cache) {
  return logits(hidden(tokens_BT, length_B, context, cache), context);
}

at::Tensor LanguageModelImpl::pooled(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                                     const ForwardContext& context) {
  return pool(hidden(tokens_BT, length_B, context), length_B);
}

at::Tensor LanguageModelImpl::pool(const at::Tensor& x_BTD, const at::Tensor& length_B) const {
  if (config_.pool == Pool::kCls) return x_BTD.select(1, 0);
  if (!length_B.defined()) return config_.pool == Pool::kEos ? x_BTD.select(1, -1) : x_BTD.mean(1);
  if (config_.pool == Pool::kEos) {
    const auto last_B11 = (length_B - 1).clamp_min(0).view({-1, 1, 1});
    return x_BTD.gather(1, last_B11.expand({-1, 1, x_BTD.size(2)})).squeeze(1);
  }
  const auto position = at::arange(x_BTD.size(1), length_B.options());
  const auto weight_BT = position.unsqueeze(0).lt(length_B.unsqueeze(1)).to(x_BTD.scalar_type());
  const auto count_B1 = length_B.clamp_min(1).unsqueeze(1).to(x_BTD.scalar_type());
  // A product with the weights would let NaN at padded places through; a select does not.
  const auto kept_BTD =
      at::where(weight_BT.unsqueeze(2).to(at::kBool), x_BTD, at::zeros({}, x_BTD.options()));
  return kept_BTD.sum(1) / count_B1;
}

const at::Tensor& LanguageModelImpl::head_weight() const {
  return config_.tied_head ? embedding_VD_ : head_VD_;
}

KeyValueCache LanguageModelImpl::make_cache(int64_t batch, int64_t capacity,
                                            const ForwardContext& context) const {
  const at::ScalarType type = context.compute_dtype.value_or(embedding_VD_.scalar_type());
  return {{.layers = config_.layers,
           .batch = batch,
           .kv_heads = config_.num_kv_heads(),
           .capacity = capacity,
           .head_dim = config_.head_size()},
          embedding_VD_.options().dtype(type).requires_grad(false)};
}

void LanguageModelImpl::initialise(ParameterInit& init) const {
  init.normal("embedding", 0.02);
  if (!config_.tied_head) init.normal("head", 0.02);
}

}  // namespace fathom
