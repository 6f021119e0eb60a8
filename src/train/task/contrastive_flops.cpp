#include "train/task/contrastive_flops.h"

#include "train/task/location_head.h"
#include "train/task/modality_discriminator.h"
#include "train/task/view_head.h"

namespace fathom {
namespace {

/// Multiply-adds of the heads.
int64_t head_products(const DualTowerConfig& model, const ContrastiveConfig& config,
                      const ContrastiveSample& sample) {
  const int64_t dim = model.vision.output_dim();
  int64_t a_view = 0;
  if (config.view_weight > 0) a_view += view_head_products(dim);
  if (config.word_weight > 0) a_view += dim * model.text.vocab_size;
  if (config.localization > 0) a_view += config.localization_pairs * location_head_products(dim);
  const int64_t embeddings = sample.views + sample.captions + (model.audio_tower ? 1 : 0);
  const int64_t told_apart =
      config.reversal > 0 ? embeddings * discriminator_products(model.embed_dim, model.audio_tower ? 3 : 2)
                          : 0;
  return sample.views * a_view + told_apart;
}

/// Of the pictures and texts of a sample, forward.
int64_t tower_flops(const DualTowerConfig& model, const ContrastiveSample& sample) {
  const int64_t image = forward_flops(model, 1, 0);
  const int64_t text = forward_flops(model, 1, sample.tokens) - image;
  return sample.views * image + sample.captions * text;
}

}  // namespace

double contrastive_flops(const DualTowerConfig& model, const ContrastiveConfig& config,
                         const ContrastiveSample& sample, const std::vector<DualTowerConfig>& teachers) {
  int64_t products = head_products(model, config, sample), taught = 0;
  for (const DualTowerConfig& teacher : teachers) {
    taught += tower_flops(teacher, sample);
    if (config.distillation.embedding_weight > 0)
      products += (sample.views + sample.captions) * model.embed_dim * teacher.embed_dim;
  }
  const int64_t learned = tower_flops(model, sample) + sound_flops(model, 1, sample.frames) + 2 * products;
  return 3.0 * static_cast<double>(learned) + static_cast<double>(taught);
}

}  // namespace fathom
