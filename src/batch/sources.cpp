#include "batch/sources.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "batch/draw_streams.h"
#include "batch/row_error.h"
#include "data/readers/dataset_part.h"

namespace fathom {
namespace {

constexpr uint64_t kOffsetStream = 4;
constexpr uint64_t kClipStream = 5;

uint64_t sample_key(int64_t seed, int64_t epoch, int64_t index) {
  return mix_seed({static_cast<uint64_t>(seed), static_cast<uint64_t>(epoch), static_cast<uint64_t>(index)});
}

std::map<std::string, int64_t> number_classes(const std::vector<std::string>& names) {
  std::map<std::string, int64_t> ids;
  for (const std::string& name : names) ids.emplace(name, static_cast<int64_t>(ids.size()));
  return ids;
}

int64_t class_of(const Record& record, const std::map<std::string, int64_t>& ids) {
  if (record.label.empty() || ids.empty()) return -1;
  const auto place = ids.find(record.label);
  if (place == ids.end())
    fail(ErrorKind::kData, "{}: label \"{}\" is not among the classes", record.source, record.label);
  return place->second;
}

/// Of image, captions and sound.
int num_modalities(const Record& record) {
  return !record.image_path.empty() + !record.captions.empty() + !record.audio_path.empty();
}

std::string problem_of_pair(const Record& record) {
  if (record.image_path.empty()) return "no image";
  return record.captions.empty() ? "no caption" : "";
}
std::string problem_of_hearing(const Record& record) {
  return num_modalities(record) < 2 ? "expected two at least of image, captions and audio" : "";
}
std::string problem_of_image(const Record& record) {
  return record.image_path.empty() ? "no image" : "";
}
std::string problem_of_clip(const Record& record) {
  return record.audio_path.empty() ? "no audio" : "";
}

}  // namespace

void PairingConfig::fields(Fields& f) {
  f("captions_per_image", captions_per_image,
    "captions of a picture in one batch, different ones while it has them (contrastive)",
    {.low = 1, .high = 64});
  f("views_per_image", views_per_image, "augmented views of a picture in one batch (contrastive)",
    {.low = 1, .high = 8});
  f("questions_per_image", questions_per_image,
    "most questions about a picture in one sample, which encodes it once (answers); an epoch has every "
    "question once, dealt out anew, rows left over teach nothing, and training.batch_size counts samples",
    {.low = 1, .high = 64});
}

PairedSource::PairedSource(Setup setup) : setup_(std::move(setup)) {
  if (setup_.images->phase() != Phase::kTrain) setup_.pairing = PairingConfig{};
  setup_.dataset = usable_records(setup_.dataset, setup_.clips ? problem_of_hearing : problem_of_pair);
}

const Record* PairedSource::first_incomplete() const {
  for (const Record& record : setup_.dataset->records())
    if (setup_.clips && num_modalities(record) < 3) return &record;
  return nullptr;
}

Sample PairedSource::load(int64_t index, int64_t epoch) const {
  const Record& record = setup_.dataset->record(index);
  const uint64_t key = sample_key(setup_.seed, epoch, index);
  const bool training = setup_.images->phase() == Phase::kTrain;
  Sample sample{.index = index, .record = record};
  Random view_random(key, kViewStream);
  in_row_of(record, [&] {
    for (int64_t view = 0; view < setup_.pairing.views_per_image && !record.image_path.empty(); ++view)
      sample.images.push_back(setup_.images->view(record.image_path, view_random));
    if (setup_.clips && !record.audio_path.empty())
      sample.spectrogram = setup_.clips->view(record.audio_path, mix_seed({key, kClipStream}));
  });
  std::vector<size_t> order(record.captions.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (training) Random(key, kCaptionStream).shuffle(order);
  Random mask_random(key, kTokenMaskStream);
  for (int64_t k = 0; k < setup_.pairing.captions_per_image && !order.empty(); ++k) {
    const std::string& caption = record.captions[order[static_cast<size_t>(k) % order.size()]];
    sample.token_rows.push_back(setup_.text.encode(caption));
    if (training) setup_.text.mask(sample.token_rows.back(), mask_random);
  }
  return sample;
}

ImageSource::ImageSource(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const ImageViews> images,
                         int64_t seed, std::vector<std::string> class_names)
    : dataset_(usable_records(std::move(dataset), problem_of_image)),
      images_(std::move(images)),
      seed_(seed),
      class_ids_(number_classes(class_names)) {}

Sample ImageSource::load(int64_t index, int64_t epoch) const {
  const Record& record = dataset_->record(index);
  Random random(sample_key(seed_, epoch, index), kViewStream);
  return {.index = index,
          .record = record,
          .images = {in_row_of(record, [&] { return images_->view(record.image_path, random); })},
          .labels = {class_of(record, class_ids_)}};
}

AudioSource::AudioSource(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const AudioViews> clips,
                         int64_t seed, std::vector<std::string> class_names)
    : dataset_(usable_records(std::move(dataset), problem_of_clip)),
      clips_(std::move(clips)),
      seed_(seed),
      class_ids_(number_classes(class_names)) {}

Sample AudioSource::load(int64_t index, int64_t epoch) const {
  const Record& record = dataset_->record(index);
  return {
      .index = index,
      .record = record,
      .spectrogram = in_row_of(
          record,
          [&] {
            return clips_->view(record.audio_path, mix_seed({sample_key(seed_, epoch, index), kClipStream}));
          }),
      .labels = {class_of(record, class_ids_)}};
}

TextSource::TextSource(std::shared_ptr<const Dataset> dataset, TextEncoding text,
                       std::vector<std::string> class_names)
    : dataset_(std::move(dataset)), text_(std::move(text)), class_ids_(number_classes(class_names)) {
  for (int64_t i = 0; i < dataset_->size(); ++i) {
    const Record& record = dataset_->record(i);
    const size_t num_sentences = record.captions.empty() ? !record.text.empty() : record.captions.size();
    for (size_t k = 0; k < num_sentences; ++k) places_.emplace_back(i, static_cast<int64_t>(k));
  }
}

const std::string& TextSource::sentence(int64_t index) const {
  const auto [record_index, position] = places_[static_cast<size_t>(index)];
  const Record& record = dataset_->record(record_index);
  return record.captions.empty() ? record.text : record.captions[static_cast<size_t>(position)];
}

Sample TextSource::load(int64_t index, int64_t) const {
  const Record& record = dataset_->record(record_of(index));
  return {.index = index,
          .record = record,
          .token_rows = {text_.encode(sentence(index))},
          .labels = {class_of(record, class_ids_)}};
}

TokenWindowSource::TokenWindowSource(std::vector<TokenFile> files, int64_t num_tokens, Phase phase,
                                     int64_t seed, int32_t start_of_text)
    : files_(std::move(files)),
      num_tokens_(num_tokens),
      phase_(phase),
      seed_(seed),
      start_of_text_(start_of_text) {
  FATHOM_CHECK(num_tokens >= 1 && !files_.empty(),
               "[token_windows] expected files and at least 1 token, got {} and {}", files_.size(),
               num_tokens);
  starts_.push_back(0);
  for (const TokenFile& file : files_) {
    const int64_t needed = phase == Phase::kTrain ? 2 * num_tokens : 1;
    if (file.size() < needed)
      fail(ErrorKind::kData, "{}: {} tokens, expected at least {}", file.text_path(), file.size(), needed);
    const int64_t windows =
        phase == Phase::kTrain ? (file.size() - num_tokens) / num_tokens : (file.size() - 1) / num_tokens + 1;
    starts_.push_back(starts_.back() + windows);
  }
}

int64_t TokenWindowSource::text_bytes() const {
  int64_t total = 0;
  for (const TokenFile& file : files_) total += file.text_bytes();
  return total;
}

Sample TokenWindowSource::load(int64_t index, int64_t epoch) const {
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), index);
  const auto which = static_cast<size_t>(after - starts_.begin() - 1);
  const auto tokens = files_[which].tokens();
  const int64_t window = index - starts_[which];
  Sample sample{.index = index};
  sample.record.source = files_[which].text_path();
  if (phase_ == Phase::kTrain) {
    const int64_t offset =
        Random(sample_key(seed_, epoch, static_cast<int64_t>(which)), kOffsetStream).below(num_tokens_);
    const auto part = tokens.subspan(static_cast<size_t>(offset + window * num_tokens_),
                                     static_cast<size_t>(num_tokens_) + 1);
    sample.token_rows.emplace_back(part.begin(), part.end());
    return sample;
  }
  const int64_t begin = window * num_tokens_;
  const int64_t end = std::min(begin + num_tokens_, static_cast<int64_t>(tokens.size()));
  const auto part = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  std::vector<int32_t>& row = sample.token_rows.emplace_back();
  row.push_back(begin == 0 ? start_of_text_ : tokens[static_cast<size_t>(begin) - 1]);
  row.insert(row.end(), part.begin(), part.end());
  return sample;
}

}  // namespace fathom
