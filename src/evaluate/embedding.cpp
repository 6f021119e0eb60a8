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

using VisitBatch = std::function<void(const Batch& batch, const ForwardContext& context)>;
using EmbedBatch = std::function<at::Tensor(const Batch& batch, const ForwardContext& context)>;
using EncodeBatch = std::function<PairSide(const Batch& batch, const ForwardContext& context)>;

/// One pass over a source. `label` names it on the progress bar.
struct Pass {
  std::string label;
  std::shared_ptr<const SampleSource> source;
  CollateConfig collate;
  PixelStatistics pixels;
  int64_t vocab_size = 0;
};

void visit_all(const Pass& pass, const EvaluateOptions& options, const VisitBatch& visit) {
  const torch::NoGradGuard no_grad;
  LoaderSetup setup = one_pass(pass.source, options.batch_size, options.workers);
  setup.collate = pass.collate;
  Loader loader(std::move(setup));
  std::optional<Progress> progress;
  if (options.show_progress) progress.emplace(pass.label, pass.source->size());
  const ForwardContext context = options.context();
  int64_t done = 0;
  while (auto batch = loader.next()) {
    done += batch->size();
    if (batch->tokens_BT.defined()) require_known_tokens(batch->tokens_BT, pass.vocab_size);
    visit(to_device(std::move(*batch), options.device, pass.pixels), context);
    if (progress) progress->update(done);
  }
  FATHOM_CHECK(done == pass.source->size(), "[embed] expected {} samples, got {}", pass.source->size(), done);
}

at::Tensor embed_all(const Pass& pass, const EvaluateOptions& options, const EmbedBatch& embed) {
  std::vector<at::Tensor> parts;
  visit_all(pass, options, [&](const Batch& batch, const ForwardContext& context) {
    parts.push_back(embed(batch, context).to(at::kFloat));
  });
  return at::cat(parts);
}

PairSide encode_all(const Pass& pass, const EvaluateOptions& options, const EncodeBatch& encode) {
  std::vector<PairSide> parts;
  visit_all(pass, options, [&](const Batch& batch, const ForwardContext& context) {
    parts.push_back(encode(batch, context));
  });
  return join_sides(parts);
}

Pass image_pass(const DualTower& model, std::shared_ptr<const SampleSource> source) {
  return {.label = "images",
          .source = std::move(source),
          .pixels = pixel_statistics(model->config().vision.preprocessing)};
}

Pass text_pass(const DualTower& model, const std::shared_ptr<const TextSource>& source) {
  return {.label = "texts",
          .source = source,
          .collate = {.padding_id = source->encoding().padding_id()},
          .vocab_size = model->config().text.vocab_size};
}

std::shared_ptr<const TextSource> source_of(const TextEncoding& encoding,
                                            const std::vector<std::string>& texts) {
  std::vector<Record> records;
  for (const std::string& text : texts) records.push_back({.text = text});
  const auto dataset = std::make_shared<const Dataset>("texts", DataFormat::kText, std::move(records),
                                                       std::make_shared<DataReport>());
  return std::make_shared<const TextSource>(dataset, encoding);
}

EvaluateOptions without_progress(EvaluateOptions options) {
  options.show_progress = false;
  return options;
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
  return embed_all(image_pass(model, std::move(source)), options,
                   [&](const Batch& batch, const ForwardContext& context) {
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
  return embed_all(text_pass(model, source), options, [&](const Batch& batch, const ForwardContext& context) {
    return model->embed_text(batch.tokens_BT, batch.length_B, context);
  });
}

at::Tensor embed_texts(DualTower model, const TextEncoding& encoding, const std::vector<std::string>& texts,
                       const EvaluateOptions& options) {
  return embed_texts(std::move(model), source_of(encoding, texts), without_progress(options));
}

at::Tensor embed_sounds(DualTower model, std::shared_ptr<const AudioSource> source,
                        const EvaluateOptions& options) {
  model->eval();
  return embed_all({.label = "sounds", .source = std::move(source)}, options,
                   [&](const Batch& batch, const ForwardContext& context) {
                     return model->embed_sound(batch.mel_BFS, batch.frames_B, context);
                   });
}

PairSide encode_images(DualTower model, std::shared_ptr<const SampleSource> source,
                       const EvaluateOptions& options) {
  model->eval();
  return encode_all(image_pass(model, std::move(source)), options,
                    [&](const Batch& batch, const ForwardContext& context) {
                      return model->encode_image(batch.image_BCHW, context);
                    });
}

PairSide encode_texts(DualTower model, std::shared_ptr<const TextSource> source,
                      const EvaluateOptions& options) {
  model->eval();
  return encode_all(text_pass(model, source), options,
                    [&](const Batch& batch, const ForwardContext& context) {
                      return model->encode_text(batch.tokens_BT, batch.length_B, context);
                    });
}

PairSide encode_texts(DualTower model, const TextEncoding& encoding, const std::vector<std::string>& texts,
                      const EvaluateOptions& options) {
  return encode_texts(std::move(model), source_of(encoding, texts), without_progress(options));
}

}  // namespace fathom
