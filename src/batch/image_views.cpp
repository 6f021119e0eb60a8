#include "batch/image_views.h"

#include <algorithm>
#include <span>

#include "data/media_file.h"

namespace fathom {
namespace {

int64_t num_bytes(const ImageHeader& header) {
  return header.height * header.width * 3;
}

}  // namespace

void ImageViewConfig::fields(Fields& f) {
  f("size", size, "height and width that the model sees, in pixels (0: the model's)",
    {.low = 0, .high = 4096});
  f.group("augment", augment, "random views for training, centre view for evaluation");
  f("cache_mb", cache_mb, "memory for decoded images, kept so that they are decoded once; 0 for none",
    {.low = 0});
}

ImageViews::ImageViews(const ImageViewConfig& config, Phase phase) : config_(config), phase_(phase) {}

/// Where decoding at a reduced scale could be chosen, the view of a kept image would differ from that of its
/// file.
bool ImageViews::may_keep(const ImageHeader& header) const {
  const auto scaled_from = static_cast<int64_t>(2 * kScaledDecodeGap) * config_.size;
  const bool never_scaled =
      !config_.augment.scaled_decode || std::max(header.height, header.width) < scaled_from;
  return never_scaled && cached_bytes_ + num_bytes(header) <= config_.cache_mb << 20;
}

std::shared_ptr<const Image> ImageViews::find(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto place = cache_.find(path);
  return place == cache_.end() ? nullptr : place->second;
}

std::shared_ptr<const Image> ImageViews::keep(const std::string& path, Image image) const {
  const auto kept = std::make_shared<const Image>(std::move(image));
  const std::lock_guard lock(mutex_);
  if (cache_.emplace(path, kept).second) cached_bytes_ += static_cast<int64_t>(kept->pixels.size());
  return kept;
}

Image ImageViews::view_of(const Image& image, Random& random) const {
  return phase_ == Phase::kTrain ? augment(image, config_.augment, config_.size, random)
                                 : centre_view(image, config_.augment, config_.size);
}

Image ImageViews::view(const std::string& path, Random& random) const {
  if (const auto image = find(path)) return view_of(*image, random);
  const std::string content = read_media(path);
  const EncodedImage encoded{std::as_bytes(std::span(content)), path};
  if (may_keep(read_image_header(encoded.bytes, path)))
    return view_of(*keep(path, decode_image(encoded.bytes, path)), random);
  return phase_ == Phase::kTrain ? load_augmented(encoded, config_.augment, config_.size, random)
                                 : load_centre_view(encoded, config_.augment, config_.size);
}

}  // namespace fathom
