#include "report/sound_exhibit.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "base/random.h"
#include "batch/collate.h"
#include "data/audio/log_mel.h"
#include "data/image/encode.h"
#include "evaluate/flat_index.h"

namespace fathom {
namespace {

/// Keeps the draws apart from those of the other exhibits.
constexpr uint64_t kSeedOffset = 2;

/// Dark blue, violet, orange, pale yellow.
constexpr std::array<std::array<double, 3>, 4> kColours = {
    {{13, 8, 60}, {126, 30, 140}, {235, 110, 60}, {250, 240, 180}}};

std::array<uint8_t, 3> colour(double share) {
  const double place = std::clamp(share, 0.0, 1.0) * (kColours.size() - 1);
  const auto low = std::min(static_cast<size_t>(place), kColours.size() - 2);
  std::array<uint8_t, 3> mixed{};
  for (size_t c = 0; c < 3; ++c)
    mixed[c] = static_cast<uint8_t>(std::lround(
        kColours[low][c] + (place - static_cast<double>(low)) * (kColours[low + 1][c] - kColours[low][c])));
  return mixed;
}

std::vector<int64_t> draw(int64_t size, const ExhibitOptions& options) {
  std::vector<int64_t> all(static_cast<size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  Random({static_cast<uint64_t>(options.seed) + kSeedOffset}).shuffle(all);
  all.resize(static_cast<size_t>(std::min(size, options.count)));
  return all;
}

SoundExhibit shown(const Sample& sample) {
  const Spectrogram& spectrogram = *sample.spectrogram;
  const Record& record = sample.record;
  return {.spectrogram = spectrogram_uri(spectrogram),
          .seconds = static_cast<double>(spectrogram.num_frames * LogMel::kHop) / LogMel::kSampleRate,
          .name = !record.label.empty()     ? record.label
                  : record.captions.empty() ? record.id
                                            : record.captions.front()};
}

/// 1 + the wrong pictures that are not behind the right one.
int64_t rank_of(const at::Tensor& image_ID, const at::Tensor& sound_D, int64_t right) {
  const at::Tensor score_I = at::mv(image_ID.to(at::kDouble), sound_D.to(at::kDouble));
  return score_I.lt(score_I[right]).logical_not().sum().item<int64_t>();
}

}  // namespace

Image spectrogram_image(const Spectrogram& spectrogram, int64_t pixels) {
  const auto [least, most] = std::minmax_element(spectrogram.values.begin(), spectrogram.values.end());
  const double spread = std::max(1e-6, static_cast<double>(*most) - *least);
  Image image{.height = spectrogram.num_bands * pixels, .width = spectrogram.num_frames * pixels};
  image.pixels.reserve(static_cast<size_t>(image.height * image.width * 3));
  for (int64_t y = 0; y < image.height; ++y) {
    const int64_t band = spectrogram.num_bands - 1 - y / pixels;
    for (int64_t x = 0; x < image.width; ++x) {
      const float value = spectrogram.values[static_cast<size_t>(band * spectrogram.num_frames + x / pixels)];
      for (const uint8_t part : colour((static_cast<double>(value) - *least) / spread))
        image.pixels.push_back(part);
    }
  }
  return image;
}

std::string spectrogram_uri(const Spectrogram& spectrogram, int64_t pixels) {
  return "data:image/png;base64," + encode_base64(encode_png(spectrogram_image(spectrogram, pixels)));
}

std::vector<SoundExhibit> exhibit_sounds(const RetrievalData& data, const MeasuredData& measured,
                                         const ExhibitOptions& options) {
  std::vector<SoundExhibit> exhibits;
  if (!data.sounds) return exhibits;
  const at::Tensor& image_ID = measured.input.image_ID;
  const FlatIndex pictures(image_ID);
  for (const int64_t chosen : draw(data.sounds->size(), options)) {
    SoundExhibit& exhibit = exhibits.emplace_back(shown(data.sounds->load(chosen, 0)));
    const int64_t own = data.record_of_sound[static_cast<size_t>(chosen)];
    const auto place = std::find(data.record_of_image.begin(), data.record_of_image.end(), own);
    if (place != data.record_of_image.end())
      exhibit.rank = rank_of(image_ID, measured.sound_AD[chosen], place - data.record_of_image.begin());
    const auto nearest = pictures.search(measured.sound_AD.slice(0, chosen, chosen + 1), options.top).front();
    for (const SearchHit& hit : nearest) {
      const int64_t found = data.record_of_image[static_cast<size_t>(hit.index)];
      const Record& record = data.dataset->record(found);
      exhibit.hits.push_back({.picture = thumbnail_uri(record.image_path, options.thumbnail_pixels),
                              .caption = record.captions.empty() ? "" : record.captions.front(),
                              .right = found == own,
                              .score = hit.score});
    }
  }
  return exhibits;
}

std::vector<SoundExhibit> exhibit_classified_sounds(Classifier model, const ClassifierData& data,
                                                    const EvaluateOptions& evaluate,
                                                    const ExhibitOptions& options) {
  const torch::NoGradGuard no_grad;
  model->eval();
  std::vector<SoundExhibit> exhibits;
  for (const int64_t chosen : draw(data.source->size(), options)) {
    const std::vector<Sample> samples{data.source->load(chosen, 0)};
    SoundExhibit& exhibit = exhibits.emplace_back(shown(samples.front()));
    const Batch batch = to_device(collate(samples, data.collate), evaluate.device);
    const at::Tensor share_K = classify(model, batch, evaluate.context()).softmax(1)[0].to(at::kCPU);
    const int64_t guess = share_K.argmax().item<int64_t>();
    exhibit.guess = model->config().classes[static_cast<size_t>(guess)];
    exhibit.probability = share_K[guess].item<double>();
  }
  return exhibits;
}

void write_sounds(HtmlWriter& page, const std::vector<SoundExhibit>& exhibits) {
  if (exhibits.empty()) return;
  const bool classified = !exhibits.front().guess.empty();
  page.element("h2", classified ? "Sounds" : "Sounds that find pictures");
  page.element("p",
               classified ? "Recordings drawn at random as the model hears them (time to the right, low "
                            "frequencies below), with what they are and what the model takes them for."
                          : "Sounds drawn at random as the model hears them (time to the right, low "
                            "frequencies below), with the nearest pictures. The right one is framed.",
               {{"class", "note"}});
  page.open("div", {{"class", "card"}});
  for (const SoundExhibit& exhibit : exhibits) {
    page.open("div", {{"class", "query"}}).open("div");
    page.element("span", exhibit.name, {{"class", "words"}});
    if (classified) {
      const bool right = exhibit.guess == exhibit.name;
      page.element("span",
                   right
                       ? fmt::format("right, {:.0f} % sure", 100 * exhibit.probability)
                       : fmt::format("taken for {}, {:.0f} % sure", exhibit.guess, 100 * exhibit.probability),
                   {{"class", right ? "rank first" : "rank"}});
    } else if (exhibit.rank > 0) {
      page.element(
          "span",
          exhibit.rank == 1 ? "own picture first" : fmt::format("own picture at rank {}", exhibit.rank),
          {{"class", exhibit.rank == 1 ? "rank first" : "rank"}});
    }
    page.close();
    page.empty("img", {{"src", exhibit.spectrogram},
                       {"alt", fmt::format("spectrogram of {:.2f} seconds", exhibit.seconds)},
                       {"class", "spectrogram"},
                       {"loading", "lazy"}});
    if (!exhibit.hits.empty()) page.open("div", {{"class", "found"}});
    for (const ExhibitHit& hit : exhibit.hits) {
      page.open("figure", {{"class", hit.right ? "right" : "wrong"}});
      page.empty("img", {{"src", hit.picture}, {"alt", hit.caption}, {"loading", "lazy"}});
      page.element("figcaption", hit.caption).close();
    }
    if (!exhibit.hits.empty()) page.close();
    page.close();
  }
  page.close();
}

}  // namespace fathom
