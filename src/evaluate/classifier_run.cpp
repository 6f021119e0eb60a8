#include "evaluate/classifier_run.h"

#include <torch/torch.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/progress.h"
#include "batch/loader.h"
#include "evaluate/embedding.h"

namespace fathom {
namespace {

void require_labels(const Dataset& dataset, const std::vector<std::string>& classes) {
  for (const Record& record : dataset.records()) {
    if (record.label.empty())
      fail(ErrorKind::kData, "{}: classification needs a label in every row", record.source);
    if (std::find(classes.begin(), classes.end(), record.label) == classes.end())
      fail(ErrorKind::kData, "{}: label \"{}\" is not among the {} classes", record.source, record.label,
           classes.size());
  }
}

}  // namespace

ClassifierReader::ClassifierReader(ClassifierConfig config, const ModelInputs& inputs,
                                   std::shared_ptr<const Tokenizer> tokenizer, Phase phase, int64_t seed)
    : config_(std::move(config)), seed_(seed) {
  switch (config_.encoder) {
    case EncoderKind::kImage:
      images_ = std::make_shared<const ImageViews>(inputs.image, phase);
      break;
    case EncoderKind::kAudio:
      clips_ = std::make_shared<const AudioViews>(inputs.audio, phase);
      break;
    case EncoderKind::kText:
      FATHOM_CHECK(tokenizer != nullptr, "[classifier] a text encoder needs a tokenizer");
      text_.emplace(std::move(tokenizer), inputs.text);
      break;
  }
}

std::shared_ptr<const SampleSource> ClassifierReader::read(std::shared_ptr<const Dataset> dataset) const {
  require_labels(*dataset, config_.classes);
  if (images_)
    return std::make_shared<const ImageSource>(std::move(dataset), images_, seed_, config_.classes);
  if (clips_) return std::make_shared<const AudioSource>(std::move(dataset), clips_, seed_, config_.classes);
  return std::make_shared<const TextSource>(std::move(dataset), *text_, config_.classes);
}

CollateConfig ClassifierReader::collate() const {
  return text_ ? CollateConfig{.padding_id = text_->padding_id()} : CollateConfig{};
}

ClassifierData::ClassifierData(const ClassifierConfig& config, std::shared_ptr<const Dataset> dataset,
                               const ModelInputs& inputs, std::shared_ptr<const Tokenizer> tokenizer,
                               Phase phase, int64_t seed) {
  const ClassifierReader reader(config, inputs, std::move(tokenizer), phase, seed);
  source = reader.read(std::move(dataset));
  collate = reader.collate();
}

at::Tensor classify(Classifier model, const Batch& batch, const ForwardContext& context) {
  at::Tensor pooled_BD;
  switch (model->config().encoder) {
    case EncoderKind::kImage:
      pooled_BD = model->vision()->forward(batch.image_BCHW, context);
      break;
    case EncoderKind::kText:
      pooled_BD = model->text()->pooled(batch.tokens_BT, batch.length_B, context);
      break;
    case EncoderKind::kAudio:
      pooled_BD = model->audio()->pooled(batch.mel_BFS, batch.frames_B, context);
      break;
  }
  const at::Tensor logits_BK = model->logits(pooled_BD, context);
  return logits_BK.to(at::promote_types(logits_BK.scalar_type(), at::kFloat));
}

PixelStatistics classifier_pixels(const ClassifierConfig& config) {
  return config.encoder == EncoderKind::kImage ? pixel_statistics(config.vision.preprocessing)
                                               : PixelStatistics{};
}

ClassificationReport evaluate_classifier(Classifier model, const ClassifierData& data,
                                         const EvaluateOptions& options, double* loss) {
  const torch::NoGradGuard no_grad;
  model->eval();
  LoaderSetup setup = one_pass(data.source, options.batch_size, options.workers);
  setup.collate = data.collate;
  Loader loader(std::move(setup));
  std::optional<Progress> progress;
  if (options.show_progress) progress.emplace("samples", data.source->size());
  std::vector<at::Tensor> logits, labels;
  int64_t done = 0;
  while (auto batch = loader.next()) {
    done += batch->size();
    if (batch->tokens_BT.defined()) require_known_tokens(batch->tokens_BT, model->config().text.vocab_size);
    const Batch placed = to_device(std::move(*batch), options.device, classifier_pixels(model->config()));
    logits.push_back(classify(model, placed, options.context()));
    labels.push_back(placed.label_B);
    if (progress) progress->update(done);
  }
  const at::Tensor logits_NK = at::cat(logits), labels_N = at::cat(labels);
  if (loss) *loss = at::cross_entropy_loss(logits_NK, labels_N).item<double>();
  ClassificationReport report = score_classes(logits_NK, labels_N);
  report.task = "classification";
  return report;
}

}  // namespace fathom
