#include "evaluate/embedding.h"

#include <torch/torch.h>

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "base/progress.h"
#include "batch/loader.h"
#include "evaluate/model_inputs.h"

namespace fathom {
namespace {

using EmbedBatch = std::function<at::Tensor(const Batch& batch, const ForwardContext& context)>;

/// One pass over a source. `label` names it on the progress bar.
struct Pass {
  std::string label;
  std::shared_ptr<const SampleSource> source;
  CollateConfig collate;
  PixelStatistics pixels;
  int64_t vocab_size = 0;
};

at::Tensor embed_all(const Pass& pass, const EvaluateOptions& options, const EmbedBatch& embed) {
  const torch::NoGradGuard no_grad;
  LoaderSetup setup = one_pass(pass.source, options.batch_size, options.workers);
  setup.collate = pass.collate;
  Loader loader(std::move(setup));
  std::optional<Progress> progress;
  if (options.show_progress) progress.emplace(pass.label, pass.source->size());
  const ForwardContext context{.compute_dtype = options.compute_dtype};
  std::vector<at::Tensor> parts;
  int64_t done = 0;
  while (auto batch = loader.next()) {
    done += batch->size();
    if (batch->tokens_BT.defined()) require_known_tokens(batch->tokens_BT, pass.vocab_size);
    parts.push_back(embed(to_device(std::move(*batch), options.device, pass.pixels), context).to(at::kFloat));
    if (progress) progress->update(done);
  }
  FATHOM_CHECK(done == pass.source->size(), "[embed] expected {} samples, got {}", pass.source->size(), done);
  return at::cat(parts);
}

}  // namespace

PixelStatistics pixel_statistics(const ImagePreprocessing& preprocessing) {
  PixelStatistics pixels;
  std::copy_n(preprocessing.mean.begin(), 3, pixels.mean.begin());
  std::copy_n(preprocessing.deviation.begin(), 3, pixels.deviation.begin());
  return pixels;
}

at::Tensor embed_images(DualTower model, std::shared_ptr<const SampleSource> source,
                        const EvaluateOptions& options) {
  model->eval();
  const Pass pass{
      .label = "images", .source = source, .pixels = pixel_statistics(model->config().vision.preprocessing)};
  return embed_all(pass, options, [&](const Batch& batch, const ForwardContext& context) {
    return model->embed_image(batch.image_BCHW, context);
  });
}

at::Tensor embed_images(Swin model, std::shared_ptr<const SampleSource> source,
                        const EvaluateOptions& options) {
  model->eval();
  const Pass pass{
      .label = "images", .source = source, .pixels = pixel_statistics(model->config().preprocessing)};
  return embed_all(pass, options, [&](const Batch& batch, const ForwardContext& context) {
    return model->forward(batch.image_BCHW, context);
  });
}

at::Tensor embed_texts(DualTower model, std::shared_ptr<const TextSource> source,
                       const EvaluateOptions& options) {
  model->eval();
  const Pass pass{.label = "texts",
                  .source = source,
                  .collate = {.padding_id = source->encoding().padding_id()},
                  .vocab_size = model->config().text.vocab_size};
  return embed_all(pass, options, [&](const Batch& batch, const ForwardContext& context) {
    return model->embed_text(batch.tokens_BT, batch.length_B, context);
  });
}

at::Tensor embed_texts(DualTower model, const TextEncoding& encoding, const std::vector<std::string>& texts,
                       const EvaluateOptions& options) {
  std::vector<Record> records;
  for (const std::string& text : texts) records.push_back({.text = text});
  const auto dataset = std::make_shared<const Dataset>("texts", DataFormat::kText, std::move(records),
                                                       std::make_shared<DataReport>());
  EvaluateOptions quiet = options;
  quiet.show_progress = false;
  return embed_texts(model, std::make_shared<const TextSource>(dataset, encoding), quiet);
}

}  // namespace fathom
