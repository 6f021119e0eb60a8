#include "report/exhibit.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "base/random.h"
#include "data/image/image.h"
#include "evaluate/flat_index.h"
#include "report/html.h"

namespace fathom {
std::vector<int64_t> draw_examples(int64_t size, int64_t count, uint64_t seed) {
  std::vector<int64_t> all(static_cast<size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  Random({seed}).shuffle(all);
  all.resize(static_cast<size_t>(std::min(size, count)));
  return all;
}

std::string thumbnail_uri(const std::string& path, int64_t longer_side) {
  const Image image = load_image(path);
  const double scale =
      static_cast<double>(longer_side) / static_cast<double>(std::max(image.height, image.width));
  const auto scaled = [&](int64_t side) {
    return std::max<int64_t>(1, std::llround(scale * static_cast<double>(side)));
  };
  const Image small =
      scale < 1 ? resize(image, scaled(image.height), scaled(image.width), Filter::kBicubic) : image;
  return "data:image/jpeg;base64," + encode_base64(encode_jpeg(small, 82));
}

std::vector<Exhibit> exhibit_text_to_image(const MeasuredRetrieval& measured, const ExhibitOptions& options) {
  const auto& [data, embeddings, ranks] = measured;
  const auto chosen =
      draw_examples(embeddings.text_CD.size(0), options.count, static_cast<uint64_t>(options.seed));
  const auto query_QD =
      embeddings.text_CD.index_select(0, torch::tensor(chosen, at::kLong).to(embeddings.text_CD.device()));
  const auto found = FlatIndex(embeddings.image_ID).search(query_QD, options.top);
  std::vector<Exhibit> exhibits;
  for (size_t q = 0; q < chosen.size(); ++q) {
    const int64_t caption = data.captions_with_image[static_cast<size_t>(chosen[q])];
    Exhibit exhibit{.query = data.texts->sentence(caption),
                    .rank = ranks.t2i[static_cast<size_t>(chosen[q])]};
    for (const SearchHit& hit : found[q]) {
      const int64_t found_record = data.record_of_image[static_cast<size_t>(hit.index)];
      const Record& record = data.dataset->record(found_record);
      exhibit.hits.push_back({.picture = thumbnail_uri(record.image_path, options.thumbnail_pixels),
                              .caption = record.captions.empty() ? "" : record.captions.front(),
                              .right = found_record == data.texts->record_of(caption),
                              .score = hit.score});
    }
    exhibits.push_back(std::move(exhibit));
  }
  return exhibits;
}

std::vector<Exhibit> exhibit_image_to_text(const MeasuredRetrieval& measured, const ExhibitOptions& options) {
  const auto& [data, embeddings, ranks] = measured;
  const auto chosen =
      draw_examples(embeddings.image_ID.size(0), options.count, static_cast<uint64_t>(options.seed) + 1);
  const auto query_QD =
      embeddings.image_ID.index_select(0, torch::tensor(chosen, at::kLong).to(embeddings.image_ID.device()));
  const auto found = FlatIndex(embeddings.text_CD).search(query_QD, options.top);
  std::vector<Exhibit> exhibits;
  for (size_t q = 0; q < chosen.size(); ++q) {
    const int64_t record = data.record_of_image[static_cast<size_t>(chosen[q])];
    const std::string& path = data.dataset->record(record).image_path;
    Exhibit exhibit{.picture = thumbnail_uri(path, options.thumbnail_pixels),
                    .rank = ranks.i2t[static_cast<size_t>(chosen[q])]};
    for (const SearchHit& hit : found[q]) {
      const int64_t caption = data.captions_with_image[static_cast<size_t>(hit.index)];
      exhibit.hits.push_back({.caption = data.texts->sentence(caption),
                              .right = data.texts->record_of(caption) == record,
                              .score = hit.score});
    }
    exhibits.push_back(std::move(exhibit));
  }
  return exhibits;
}

}  // namespace fathom
