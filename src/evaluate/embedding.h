// A data set as embeddings.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "batch/collate.h"
#include "batch/sources.h"
#include "evaluate/options.h"
#include "models/dual_tower/model.h"
#include "models/swin/model.h"

namespace fathom {

/// How images of this model's batches are normalised.
PixelStatistics pixel_statistics(const ImagePreprocessing& preprocessing);

/// Embeddings of every sample of `source`, in its order: [N, D] float32, on `options.device`. The model is
/// put into evaluation mode and must live on that device. Errors (kData): an image that cannot be read.
at::Tensor embed_images(DualTower model, std::shared_ptr<const SampleSource> source,
                        const EvaluateOptions& options = {});
at::Tensor embed_texts(DualTower model, std::shared_ptr<const TextSource> source,
                       const EvaluateOptions& options = {});
/// Texts that are no part of a data set: queries, prompts.
at::Tensor embed_texts(DualTower model, const TextEncoding& encoding, const std::vector<std::string>& texts,
                       const EvaluateOptions& options = {});
/// Clips. REQUIRES model->config().audio_tower.
at::Tensor embed_sounds(DualTower model, std::shared_ptr<const AudioSource> source,
                        const EvaluateOptions& options = {});
/// What region scores compare as well, where the model has them: all parts of all samples, texts padded to
/// the longest. Memory is N · (1 + 2 · parts) · D numbers.
PairSide encode_images(DualTower model, std::shared_ptr<const SampleSource> source,
                       const EvaluateOptions& options = {});
PairSide encode_texts(DualTower model, std::shared_ptr<const TextSource> source,
                      const EvaluateOptions& options = {});
PairSide encode_texts(DualTower model, const TextEncoding& encoding, const std::vector<std::string>& texts,
                      const EvaluateOptions& options = {});
/// Mean region features of an image encoder alone, as they are (not unit length).
at::Tensor embed_images(Swin model, std::shared_ptr<const SampleSource> source,
                        const EvaluateOptions& options = {});

}  // namespace fathom
