// An image file as the square a model sees, with decoded images kept in memory as far as they fit.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/config.h"
#include "base/random.h"
#include "batch/phase.h"
#include "data/image/image.h"
#include "data/sample.h"

namespace fathom {

struct ImageViewConfig {
  int64_t size = 224;  ///< 0: the model's, which is to be filled in before views are made
  AugmentConfig augment;
  int64_t cache_mb = 1024;
  void fields(Fields& f);
};

/// Decodes, crops and resizes. Safe from many threads; what is cached changes no pixel.
class ImageViews {
 public:
  ImageViews(const ImageViewConfig& config, Phase phase);

  /// RGB, `size` × `size`. Errors (kData) name the file.
  Image view(const std::string& path, Random& random) const;

  int64_t size() const { return config_.size; }
  Phase phase() const { return phase_; }
  int64_t cached_bytes() const { return cached_bytes_; }

 private:
  bool may_keep(const ImageHeader& header) const;
  std::shared_ptr<const Image> find(const std::string& path) const;
  std::shared_ptr<const Image> keep(const std::string& path, Image image) const;
  Image view_of(const Image& image, Random& random) const;

  ImageViewConfig config_;
  Phase phase_;
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, std::shared_ptr<const Image>> cache_;
  mutable std::atomic<int64_t> cached_bytes_ = 0;
};

}  // namespace fathom
