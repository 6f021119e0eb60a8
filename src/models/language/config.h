// The shape of a Llama-compatible transformer, as decoder or as text encoder.
#pragma once

#include <cstdint>
#include <string>

#include "base/config.h"
#include "nn/gate_config.h"

namespace fathom {

enum class AttentionKind { kCausal, kBidirectional };
enum class Pool { kEos, kMean, kCls };  ///< last unpadded token, mean of the unpadded ones, first token

/// Zero stands for a size that follows from others; the accessors below give the actual one.
struct LanguageModelConfig {
  int64_t vocab_size = 0;  ///< 0 in a recipe: the tokenizer's; must be set before a model is made
  int64_t dim = 512;
  int64_t layers = 8;
  int64_t heads = 8;
  int64_t kv_heads = 0;  ///< 0: as many as heads
  int64_t head_dim = 0;  ///< 0: dim ÷ heads
  int64_t mlp_dim = 0;   ///< 0: 8/3 of dim, rounded up to a multiple of 64
  int64_t max_positions = 1024;
  double rope_theta = 10000.0;
  double norm_eps = 1e-5;
  bool tied_head = true;  ///< the output head is the embedding
  bool qkv_bias = false;  ///< Qwen2
  AttentionKind attention = AttentionKind::kCausal;
  Pool pool = Pool::kEos;
  double dropout = 0.0;    ///< after the embedding and on each residual branch
  double drop_path = 0.0;  ///< stochastic depth, growing linearly to this in the last block
  GateConfig gate;

  int64_t num_kv_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  int64_t head_size() const { return head_dim > 0 ? head_dim : dim / heads; }
  int64_t mlp_size() const { return mlp_dim > 0 ? mlp_dim : (8 * dim / 3 + 63) / 64 * 64; }

  void fields(Fields& f);
  /// Errors (kConfig): sizes that do not divide, an odd head size.
  void validate() const;
};

/// Parameters of a model of this shape, without making one. REQUIRES vocab_size > 0.
int64_t parameter_count(const LanguageModelConfig& config);

/// Floating-point operations (2 a multiply-add) of matrix products in one forward pass over `sequences` ×
/// `tokens`, head included; causal attention counts half. A training step takes three times that.
int64_t forward_flops(const LanguageModelConfig& config, int64_t sequences, int64_t tokens);

}  // namespace fathom
