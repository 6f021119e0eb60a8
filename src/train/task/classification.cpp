// B samples, K classes.
#include "train/task/classification.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "evaluate/classifier_run.h"
#include "models/model_folder.h"
#include "train/task/module_parameters.h"

namespace fathom {
namespace {

/// Beta(α, α) by Jöhnk's method ("Erzeugung von betaverteilten und gammaverteilten Zufallszahlen", Metrika
/// 1964).
double draw_beta(double alpha, Random& random) {
  while (true) {
    const double x = std::pow(random.uniform(), 1.0 / alpha), y = std::pow(random.uniform(), 1.0 / alpha);
    if (x + y <= 1.0 && x + y > 0.0) return x / (x + y);
  }
}

/// Each sample's own share, by its key alone: at least ½.
at::Tensor draw_shares(const at::Tensor& key_B, double alpha) {
  constexpr uint64_t kMixStream = 0x6d69787570;
  const at::Tensor keys = key_B.cpu();
  at::Tensor shares = at::empty({keys.size(0)}, at::kFloat);
  for (int64_t i = 0; i < keys.size(0); ++i) {
    Random random(static_cast<uint64_t>(keys[i].item<int64_t>()), kMixStream);
    const double drawn = draw_beta(alpha, random);
    shares[i] = std::max(drawn, 1.0 - drawn);
  }
  return shares.to(key_B.device());
}

at::Tensor mix(const at::Tensor& x, const at::Tensor& share_B) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  return at::lerp(x.roll(1, 0), x, share_B.view(shape).to(x.scalar_type()));
}

}  // namespace

void ClassificationConfig::fields(Fields& f) {
  f("label_smoothing", label_smoothing, "part of the target spread over all classes",
    {.low = 0, .high = 0.99});
  f("mixup", mixup, "strength α of mixing each image or clip with another of its batch; 0 for none",
    {.low = 0, .high = 100});
}

NamedParameters ClassificationTask::parameters() const {
  return module_parameters(*setup_.model);
}

at::Tensor ClassificationTask::loss(const MicroBatch& micro_batch, const StepContext& step) {
  Batch batch = micro_batch.batch;
  const at::Tensor& label_B = batch.label_B;
  const auto score = [&](const at::Tensor& logits_BK, const at::Tensor& target_B) {
    return at::cross_entropy_loss(logits_BK, target_B, {}, at::Reduction::None, -100,
                                  setup_.config.label_smoothing);
  };
  const auto samples = static_cast<double>(step.global_samples);
  const bool mixes = setup_.config.mixup > 0 && micro_batch.forward.key_B.defined() &&
                     (batch.mel_BFS.defined() || batch.image_BCHW.defined());
  if (!mixes) return score(classify(setup_.model, batch, micro_batch.forward), label_B).sum() / samples;
  const at::Tensor share_B = draw_shares(micro_batch.forward.key_B, setup_.config.mixup);
  if (batch.mel_BFS.defined()) {
    batch.mel_BFS = mix(batch.mel_BFS, share_B);
    batch.frames_B = at::maximum(batch.frames_B, batch.frames_B.roll(1, 0));
  }
  if (batch.image_BCHW.defined()) batch.image_BCHW = mix(batch.image_BCHW, share_B);
  const at::Tensor logits_BK = classify(setup_.model, batch, micro_batch.forward);
  return at::lerp(score(logits_BK, label_B.roll(1, 0)), score(logits_BK, label_B),
                  share_B.to(logits_BK.scalar_type()))
             .sum() /
         samples;
}

void ClassificationTask::save_model(const std::string& folder, const Json& record) {
  save_model_folder(folder, setup_.model, {.tokenizer_json = setup_.tokenizer_json, .record = record});
}

PixelStatistics ClassificationTask::pixels() const {
  return classifier_pixels(setup_.model->config());
}

double ClassificationTask::flops_per_sample() const {
  return 3.0 * static_cast<double>(forward_flops(setup_.model->config(), setup_.length));
}

}  // namespace fathom
