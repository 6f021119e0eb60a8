// B samples, K classes.
#include "train/task/classification.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "evaluate/classifier_run.h"
#include "models/model_folder.h"
#include "tensor/random_keys.h"
#include "train/task/module_parameters.h"

namespace fathom {
namespace {

/// Gamma(α, 1) by Marsaglia and Tsang's method ("A simple method for generating gamma variables", ACM TOMS
/// 2000).
double draw_gamma(double alpha, Random& random) {
  if (alpha < 1.0) return draw_gamma(alpha + 1.0, random) * std::pow(random.uniform(), 1.0 / alpha);
  const double d = alpha - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  while (true) {
    const double x = random.normal(), v = std::pow(1.0 + c * x, 3.0);
    if (v > 0.0 && std::log(random.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

/// Beta(α, α); where α is so small that both parts vanish, its limit: one or the other end.
double draw_beta(double alpha, Random& random) {
  const double x = draw_gamma(alpha, random), y = draw_gamma(alpha, random);
  return x + y > 0.0 ? x / (x + y) : 1.0;
}

constexpr int64_t kNumShares = 1 << 16;
/// Tells this use of a sample's key from those of layers, whose streams are small.
constexpr int64_t kMixStream = int64_t{1} << 41;

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

at::Tensor mixup_shares(double alpha) {
  at::Tensor share_N = at::empty({kNumShares}, at::kFloat);
  Random random(/*seed=*/0, /*stream=*/0x6d69787570);
  float* shares = share_N.mutable_data_ptr<float>();
  for (int64_t i = 0; i < kNumShares; ++i) {
    const double drawn = draw_beta(alpha, random);
    shares[i] = static_cast<float>(std::max(drawn, 1.0 - drawn));
  }
  return share_N;
}

ClassificationTask::ClassificationTask(Setup setup) : setup_(std::move(setup)) {
  if (setup_.config.mixup > 0)
    share_N_ = mixup_shares(setup_.config.mixup).to(setup_.model->parameters().front().device());
}

/// Each sample's own share, by its key alone: at least ½.
at::Tensor ClassificationTask::draw_shares(const at::Tensor& key_B) const {
  const at::Tensor which_B = keyed_bits(key_B, {1}, kMixStream).squeeze(1).remainder(kNumShares);
  return share_N_.index_select(0, which_B);
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
  const at::Tensor share_B = draw_shares(micro_batch.forward.key_B);
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
