// A classifier over a data set.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "batch/batch.h"
#include "batch/collate.h"
#include "batch/sources.h"
#include "data/readers/dataset.h"
#include "evaluate/classification.h"
#include "evaluate/model_inputs.h"
#include "evaluate/options.h"

namespace fathom {

/// Makes the samples that a classifier of this shape is trained or measured on, of one data set or several,
/// for all of which together decoded pictures or clips are kept. `tokenizer` may be null unless it reads
/// texts.
class ClassifierReader {
 public:
  ClassifierReader(ClassifierConfig config, const ModelInputs& inputs,
                   std::shared_ptr<const Tokenizer> tokenizer, Phase phase, int64_t seed);
  /// Errors (kData): a record without the encoder's modality, without a label, or with one outside
  /// `config.classes`.
  std::shared_ptr<const SampleSource> read(std::shared_ptr<const Dataset> dataset) const;
  CollateConfig collate() const;

 private:
  ClassifierConfig config_;
  int64_t seed_;
  std::shared_ptr<const ImageViews> images_;  ///< one of the three is there, as the encoder is
  std::shared_ptr<const AudioViews> clips_;
  std::optional<TextEncoding> text_;
};

/// What a `ClassifierReader` makes of one data set.
struct ClassifierData {
  std::shared_ptr<const SampleSource> source;
  CollateConfig collate;

  ClassifierData(const ClassifierConfig& config, std::shared_ptr<const Dataset> dataset,
                 const ModelInputs& inputs, std::shared_ptr<const Tokenizer> tokenizer, Phase phase,
                 int64_t seed);
};

/// Scores [B, K] of a batch on the model's device, float32 or wider.
at::Tensor classify(Classifier model, const Batch& batch, const ForwardContext& context = {});

/// How images of this model's batches are normalised.
PixelStatistics classifier_pixels(const ClassifierConfig& config);

/// Accuracy of the task "classification", ties against us. `loss`, if given, gets the mean cross-entropy in
/// nats.
ClassificationReport evaluate_classifier(Classifier model, const ClassifierData& data,
                                         const EvaluateOptions& options = {}, double* loss = nullptr);

}  // namespace fathom
