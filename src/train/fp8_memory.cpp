#include "train/fp8_memory.h"

#include <torch/torch.h>

#include <vector>

namespace fathom {
namespace {

/// One block's products, and its rows of a sample. Parts that a gate thins out stay in BF16.
struct BlockShape {
  int64_t rows, dim;
  int64_t qkv, attended;  ///< widths of attention's first product and of its result
  int64_t up, inner;      ///< of the feed-forward layer's first product and of what the second takes
  bool whole_attention, whole_mlp;
};
using BlockShapes = std::vector<BlockShape>;

void add_blocks(BlockShapes& shapes, const LanguageModelConfig& config, int64_t tokens) {
  const int64_t attended = config.heads * config.head_size();
  for (int64_t layer = 0; layer < config.layers; ++layer)
    shapes.push_back({.rows = tokens,
                      .dim = config.dim,
                      .qkv = attended + 2 * config.num_kv_heads() * config.head_size(),
                      .attended = attended,
                      .up = 2 * config.mlp_size(),
                      .inner = config.mlp_size(),
                      .whole_attention = config.gate.attention_share(layer) == 1,
                      .whole_mlp = config.gate.mlp_share(layer) == 1});
}

void add_blocks(BlockShapes& shapes, const SwinConfig& config, int64_t pictures) {
  int64_t layer = 0;
  for (int64_t stage = 0; stage < config.num_stages(); ++stage) {
    const int64_t dim = config.stage_dim(stage), side = config.stage_side(stage);
    const auto inner = static_cast<int64_t>(static_cast<double>(dim) * config.mlp_ratio);
    for (int64_t block = 0; block < config.depths[static_cast<size_t>(stage)]; ++block, ++layer)
      shapes.push_back({.rows = pictures * side * side,
                        .dim = dim,
                        .qkv = 3 * dim,
                        .attended = dim,
                        .up = inner,
                        .inner = inner,
                        .whole_attention = config.gate.attention_share(layer) == 1,
                        .whole_mlp = config.gate.mlp_share(layer) == 1});
  }
}

void add_blocks(BlockShapes& shapes, const AudioEncoderConfig& config, int64_t frames) {
  for (int64_t layer = 0; layer < config.layers; ++layer)
    shapes.push_back({.rows = config.num_moments(frames) * config.groups(),
                      .dim = config.dim,
                      .qkv = 3 * config.dim,
                      .attended = config.dim,
                      .up = 2 * config.mlp_size(),
                      .inner = config.mlp_size(),
                      .whole_attention = config.gate.attention_share(layer) == 1,
                      .whole_mlp = config.gate.mlp_share(layer) == 1});
}

BlockShapes block_shapes(const RecipeConfig& recipe) {
  const int64_t tokens = recipe.data.inputs.text.max_tokens, frames = recipe.data.inputs.audio.max_frames();
  const PairingConfig& pairing = recipe.data.pairing;
  BlockShapes shapes;
  switch (recipe.task) {
    case TaskKind::kLanguage:
      add_blocks(shapes, recipe.language, recipe.language.max_positions);
      break;
    case TaskKind::kMaskedToken:
      add_blocks(shapes, recipe.language, recipe.masked_row_tokens());
      break;
    case TaskKind::kMaskedImage:
      add_blocks(shapes, recipe.vision, 1);
      break;
    case TaskKind::kMaskedAudio:
      add_blocks(shapes, recipe.audio, frames);
      break;
    case TaskKind::kClassification:
      if (recipe.classifier.encoder == EncoderKind::kImage) add_blocks(shapes, recipe.classifier.vision, 1);
      if (recipe.classifier.encoder == EncoderKind::kText) add_blocks(shapes, recipe.classifier.text, tokens);
      if (recipe.classifier.encoder == EncoderKind::kAudio)
        add_blocks(shapes, recipe.classifier.audio, frames);
      break;
    case TaskKind::kAnswers:
      if (recipe.fusion.sees()) add_blocks(shapes, recipe.fusion.vision, 1);
      add_blocks(shapes, recipe.fusion.text,
                 pairing.questions_per_image * (recipe.fusion.prefix_tokens() + recipe.question_tokens()));
      break;
    case TaskKind::kContrastive:
      add_blocks(shapes, recipe.dual_tower.vision, pairing.views_per_image);
      add_blocks(shapes, recipe.dual_tower.text, pairing.captions_per_image * tokens);
      if (recipe.dual_tower.audio_tower) add_blocks(shapes, recipe.dual_tower.audio, frames);
      break;
  }
  return shapes;
}

}  // namespace

Fp8Memory fp8_memory(const RecipeConfig& recipe, int64_t samples, const kernels::Fp8Products& products) {
  Fp8Memory memory;
  for (const BlockShape& block : block_shapes(recipe)) {
    const int64_t rows = samples * block.rows;
    // `kept`: bytes a row that the product's input takes more than under BF16.
    const auto add_product = [&](int64_t out, int64_t in, int64_t kept) {
      const auto weight = torch::empty({out, in}, torch::kMeta);
      if (!kernels::multiplies_in_fp8(rows, weight, products)) return;
      memory.weights += out * in;
      if (!recipe.training.checkpoint_blocks) memory.activation_bytes += rows * kept;
    };
    if (block.whole_attention) {
      add_product(block.qkv, block.dim, -block.dim);
      add_product(block.dim, block.attended, block.attended);  // attention keeps its result in BF16, too
    }
    if (block.whole_mlp) {
      add_product(block.up, block.dim, -block.dim);
      add_product(block.dim, block.inner, -block.inner);
    }
  }
  return memory;
}

}  // namespace fathom
