#include "evaluate/retrieval_data.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "evaluate/rerank.h"

namespace fathom {
namespace {

/// The value of `tag` for each record, "none" without one; empty where no record has it.
std::vector<std::string> group_by_tag(const Dataset& dataset, const std::string& tag) {
  std::vector<std::string> groups;
  bool found = false;
  for (const Record& record : dataset.records()) {
    const auto place = record.tags.find(tag);
    found = found || place != record.tags.end();
    groups.push_back(tag + "=" + (place == record.tags.end() ? "none" : place->second));
  }
  return found ? groups : std::vector<std::string>{};
}

}  // namespace

RetrievalData::RetrievalData(std::shared_ptr<const Dataset> data, const ModelInputs& inputs,
                             std::shared_ptr<const Tokenizer> tokenizer, const std::string& group_tag)
    : dataset(std::move(data)), group_of_image(group_by_tag(*dataset, group_tag)) {
  for (const Record& record : dataset->records())
    if (record.image_path.empty() || record.captions.empty())
      fail(ErrorKind::kData, "{}: retrieval needs an image and captions in every row", record.source);
  const auto views = std::make_shared<const ImageViews>(inputs.image, Phase::kEvaluate);
  images = std::make_shared<const ImageSource>(dataset, views, /*seed=*/0);
  texts = std::make_shared<const TextSource>(dataset, TextEncoding(std::move(tokenizer), inputs.text));
}

namespace {

at::Tensor image_of_caption(const RetrievalData& data) {
  std::vector<int64_t> owner;
  for (int64_t c = 0; c < data.texts->size(); ++c) owner.push_back(data.texts->record_of(c));
  return torch::tensor(owner, at::kLong);
}

MeasuredData measure_reranked(DualTower model, const RetrievalData& data, const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  const PairSide image = encode_images(model, data.images, options);
  const PairSide text = encode_texts(model, data.texts, options);
  MeasuredData measured{.input = {.image_ID = image.whole_ND,
                                  .text_CD = text.whole_ND,
                                  .image_of_caption_C = image_of_caption(data),
                                  .group_of_image = data.group_of_image}};
  measured.global = retrieval_ranks(measured.input);
  const auto score = [&](const at::Tensor& text_index, const at::Tensor& image_index) {
    return rerank_logits(model, select_side(text, text_index), select_side(image, image_index)).flatten();
  };
  measured.ranks = reranked(measured.input, measured.global, options.rerank, score);
  measured.report = evaluate_retrieval(measured.input, measured.ranks);
  measured.report.rerank = options.rerank;
  measured.report.global = evaluate_retrieval(measured.input, measured.global).all;
  return measured;
}

}  // namespace

RetrievalInput embed_retrieval(DualTower model, const RetrievalData& data, const EvaluateOptions& options) {
  return {.image_ID = embed_images(model, data.images, options),
          .text_CD = embed_texts(model, data.texts, options),
          .image_of_caption_C = image_of_caption(data),
          .group_of_image = data.group_of_image};
}

MeasuredData measure_retrieval(DualTower model, const RetrievalData& data, const EvaluateOptions& options) {
  if (options.rerank > 0 && !model->region().is_empty()) return measure_reranked(model, data, options);
  MeasuredData measured{.input = embed_retrieval(std::move(model), data, options)};
  measured.global = retrieval_ranks(measured.input);
  measured.ranks = measured.global;
  measured.report = evaluate_retrieval(measured.input, measured.ranks);
  return measured;
}

RetrievalReport evaluate_retrieval(DualTower model, const RetrievalData& data,
                                   const EvaluateOptions& options) {
  return measure_retrieval(std::move(model), data, options).report;
}

}  // namespace fathom
