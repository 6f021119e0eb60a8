// B samples, K classes.
#include "train/task/classification.h"

#include <torch/torch.h>

#include <utility>

#include "evaluate/classifier_run.h"
#include "models/model_folder.h"
#include "train/task/module_parameters.h"

namespace fathom {

void ClassificationConfig::fields(Fields& f) {
  f("label_smoothing", label_smoothing, "part of the target spread over all classes",
    {.low = 0, .high = 0.99});
  f("mixup", mixup, "strength α of mixing each image or clip with another of its batch; 0 for none",
    {.low = 0, .high = 100});
}

ClassificationTask::ClassificationTask(Setup setup) : setup_(std::move(setup)) {
  if (setup_.config.mixup > 0)
    shares_.emplace(setup_.config.mixup, setup_.model->parameters().front().device());
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
  const bool mixes = shares_ && micro_batch.forward.key_B.defined() &&
                     (batch.mel_BFS.defined() || batch.image_BCHW.defined());
  if (!mixes) return score(classify(setup_.model, batch, micro_batch.forward), label_B).sum() / samples;
  const at::Tensor share_B = shares_->draw(micro_batch.forward.key_B);
  if (batch.mel_BFS.defined()) {
    batch.mel_BFS = mix_rows(batch.mel_BFS, batch.mel_BFS.roll(1, 0), share_B);
    batch.frames_B = at::maximum(batch.frames_B, batch.frames_B.roll(1, 0));
  }
  if (batch.image_BCHW.defined())
    batch.image_BCHW = mix_rows(batch.image_BCHW, batch.image_BCHW.roll(1, 0), share_B);
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
