#include "evaluate/retrieval_data.h"

#include <torch/torch.h>

#include <map>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "data/readers/dataset_part.h"
#include "evaluate/rerank.h"
#include "nn/token_gate.h"

namespace fathom {
namespace {

/// The value of `tag` for each of these records, "none" without one; empty where no record has it.
std::vector<std::string> group_by_tag(const Dataset& dataset, const std::vector<int64_t>& records,
                                      const std::string& tag) {
  std::vector<std::string> groups;
  bool found = false;
  for (const int64_t index : records) {
    const Record& record = dataset.record(index);
    const auto place = record.tags.find(tag);
    found = found || place != record.tags.end();
    groups.push_back(tag + "=" + (place == record.tags.end() ? "none" : place->second));
  }
  return found ? groups : std::vector<std::string>{};
}

/// Places among `wholes` (records) of those `parts` (records) that are there, and which parts they are.
struct Owners {
  std::vector<int64_t> kept, owner;
};

Owners owners(const std::vector<int64_t>& wholes, const std::vector<int64_t>& parts) {
  std::map<int64_t, int64_t> place;
  for (const int64_t record : wholes) place.emplace(record, static_cast<int64_t>(place.size()));
  std::vector<int64_t> kept, owner;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto found = place.find(parts[i]);
    if (found == place.end()) continue;
    kept.push_back(static_cast<int64_t>(i));
    owner.push_back(found->second);
  }
  return {kept, owner};
}

std::vector<int64_t> record_of_caption(const TextSource& texts) {
  std::vector<int64_t> records;
  for (int64_t c = 0; c < texts.size(); ++c) records.push_back(texts.record_of(c));
  return records;
}

/// The records that retrieval can take.
std::shared_ptr<const Dataset> fitting(std::shared_ptr<const Dataset> dataset, bool audio_tower) {
  bool pairs = false;
  auto kept = usable_records(std::move(dataset), [&](const Record& record) -> std::string {
    const bool image = !record.image_path.empty(), text = !record.captions.empty(),
               sound = !record.audio_path.empty();
    pairs = pairs || (image && text);
    if (!audio_tower && !(image && text)) return "retrieval needs an image and captions in every row";
    if (audio_tower && image + text + sound < 2)
      return "retrieval needs two at least of image, captions and audio in every row";
    return "";
  });
  if (!pairs) fail(ErrorKind::kData, "{}: retrieval needs rows with both image and captions", kept->path());
  return kept;
}

}  // namespace

RetrievalData::RetrievalData(std::shared_ptr<const Dataset> data, const ModelInputs& inputs,
                             std::shared_ptr<const Tokenizer> tokenizer, const Options& options)
    : dataset(fitting(std::move(data), options.audio_tower)) {
  const DatasetPart pictures = records_with(dataset, &Record::image_path);
  record_of_image = pictures.places;
  group_of_image = group_by_tag(*dataset, record_of_image, options.group_tag);
  images = std::make_shared<const ImageSource>(
      pictures.dataset, std::make_shared<const ImageViews>(inputs.image, Phase::kEvaluate),
      /*seed=*/0);
  texts = std::make_shared<const TextSource>(dataset, TextEncoding(std::move(tokenizer), inputs.text));
  captions_with_image = owners(record_of_image, record_of_caption(*texts)).kept;
  const DatasetPart clips = records_with(dataset, &Record::audio_path);
  if (!options.audio_tower || clips.dataset->size() == 0) return;
  record_of_sound = clips.places;
  sounds = std::make_shared<const AudioSource>(
      clips.dataset, std::make_shared<const AudioViews>(inputs.audio, Phase::kEvaluate), /*seed=*/0);
}

namespace {

at::Tensor index_tensor(const std::vector<int64_t>& index, at::Device device) {
  return torch::tensor(index, at::kLong).to(device);
}

at::Tensor select(const at::Tensor& rows, const std::vector<int64_t>& kept) {
  if (static_cast<int64_t>(kept.size()) == rows.size(0)) return rows;
  return rows.index_select(0, index_tensor(kept, rows.device()));
}

/// Adds the four directions of sounds.
void measure_sounds(DualTower model, const RetrievalData& data, const at::Tensor& text_CD,
                    const EvaluateOptions& options, MeasuredData& measured) {
  if (!data.sounds) return;
  measured.sound_AD = embed_sounds(std::move(model), data.sounds, options);
  measured.report.sounds = measured.sound_AD.size(0);
  const auto add = [&](const at::Tensor& whole, const std::vector<int64_t>& whole_records,
                       const at::Tensor& part, const std::vector<int64_t>& part_records,
                       std::vector<std::string> groups, const char* part_to_whole,
                       const char* whole_to_part) {
    const Owners found = owners(whole_records, part_records);
    if (found.kept.empty()) return;  // no pair of this kind
    RetrievalRanks ranks = add_sounds(measured.report,
                                      {.image_ID = whole,
                                       .text_CD = select(part, found.kept),
                                       .image_of_caption_C = torch::tensor(found.owner, at::kLong),
                                       .group_of_image = std::move(groups)},
                                      part_to_whole, whole_to_part);
    std::vector<int64_t> wholes(whole_records.size());
    std::iota(wholes.begin(), wholes.end(), 0);
    measured.sound_ranks[part_to_whole] = {found.kept, std::move(ranks.t2i)};
    measured.sound_ranks[whole_to_part] = {std::move(wholes), std::move(ranks.i2t)};
  };
  add(measured.input.image_ID, data.record_of_image, measured.sound_AD, data.record_of_sound,
      data.group_of_image, "a2i", "i2a");
  std::vector<std::string> group_of_sound;
  if (!data.group_of_image.empty()) {
    std::map<int64_t, std::string> group;
    for (size_t i = 0; i < data.record_of_image.size(); ++i)
      group[data.record_of_image[i]] = data.group_of_image[i];
    for (const int64_t record : data.record_of_sound) {
      const auto place = group.find(record);
      group_of_sound.push_back(place == group.end() ? "without image" : place->second);
    }
  }
  add(measured.sound_AD, data.record_of_sound, text_CD, record_of_caption(*data.texts),
      std::move(group_of_sound), "t2a", "a2t");
}

RetrievalInput input_of(const RetrievalData& data, const at::Tensor& image_ID, const at::Tensor& text_CD) {
  const Owners found = owners(data.record_of_image, record_of_caption(*data.texts));
  return {.image_ID = image_ID,
          .text_CD = select(text_CD, found.kept),
          .image_of_caption_C = torch::tensor(found.owner, at::kLong),
          .group_of_image = data.group_of_image};
}

MeasuredData measure_global(DualTower model, const RetrievalData& data, const EvaluateOptions& options) {
  const at::Tensor image_ID = embed_images(model, data.images, options),
                   text_CD = embed_texts(model, data.texts, options);
  MeasuredData measured{.input = input_of(data, image_ID, text_CD)};
  measured.global = retrieval_ranks(measured.input);
  measured.ranks = measured.global;
  measured.report = evaluate_retrieval(measured.input, measured.ranks);
  measure_sounds(std::move(model), data, text_CD, options, measured);
  return measured;
}

MeasuredData measure_reranked(DualTower model, const RetrievalData& data, const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  const PairSide image = encode_images(model, data.images, options);
  const PairSide all_texts = encode_texts(model, data.texts, options);
  const PairSide text =
      select_side(all_texts, index_tensor(data.captions_with_image, all_texts.whole_ND.device()));
  MeasuredData measured{.input = input_of(data, image.whole_ND, all_texts.whole_ND)};
  measured.global = retrieval_ranks(measured.input);
  const auto score = [&](const at::Tensor& text_index, const at::Tensor& image_index) {
    return rerank_logits(model, select_side(text, text_index), select_side(image, image_index)).flatten();
  };
  measured.ranks = reranked(measured.input, measured.global, options.rerank, score);
  measured.report = evaluate_retrieval(measured.input, measured.ranks);
  measured.report.rerank = options.rerank;
  measured.report.global = evaluate_retrieval(measured.input, measured.global).all;
  measure_sounds(model, data, all_texts.whole_ND, options, measured);
  return measured;
}

}  // namespace

RetrievalInput embed_retrieval(DualTower model, const RetrievalData& data, const EvaluateOptions& options) {
  return input_of(data, embed_images(model, data.images, options), embed_texts(model, data.texts, options));
}

MeasuredData measure_retrieval(DualTower model, const RetrievalData& data, const EvaluateOptions& options) {
  for (auto [name, gate] : gates_of(*model)) gate->reset_counts();
  const bool reranks = options.rerank > 0 && !model->region().is_empty();
  MeasuredData measured =
      reranks ? measure_reranked(model, data, options) : measure_global(model, data, options);
  measured.report.density = activated_share(*model);
  return measured;
}

RetrievalReport evaluate_retrieval(DualTower model, const RetrievalData& data,
                                   const EvaluateOptions& options) {
  return measure_retrieval(std::move(model), data, options).report;
}

}  // namespace fathom
