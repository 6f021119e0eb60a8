#include "evaluate/retrieval_data.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

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

RetrievalInput embed_retrieval(DualTower model, const RetrievalData& data, const EvaluateOptions& options) {
  std::vector<int64_t> owner;
  for (int64_t c = 0; c < data.texts->size(); ++c) owner.push_back(data.texts->record_of(c));
  return {.image_ID = embed_images(model, data.images, options),
          .text_CD = embed_texts(model, data.texts, options),
          .image_of_caption_C = torch::tensor(owner, at::kLong),
          .group_of_image = data.group_of_image};
}

RetrievalReport evaluate_retrieval(DualTower model, const RetrievalData& data,
                                   const EvaluateOptions& options) {
  return evaluate_retrieval(embed_retrieval(std::move(model), data, options));
}

}  // namespace fathom
