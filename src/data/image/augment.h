// The views a model sees: random ones for training, the centre for evaluation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/config.h"
#include "base/random.h"
#include "data/image/decode.h"
#include "data/image/resize.h"
#include "data/sample.h"

namespace fathom {

/// How an image of any shape becomes the square that is evaluated.
enum class EvaluationView {
  kCentreCrop,  ///< the middle square; what lies outside is lost
  kSquash,      ///< the whole image, its sides stretched to be equal
};

/// Parameters as torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter and RandomGrayscale;
/// erasing as in Zhong et al., "Random erasing data augmentation", AAAI 2020, with a square of medium grey.
struct AugmentConfig {
  double crop_scale_min = 0.5;  ///< torchvision's 0.08 cuts away what a caption speaks of
  double crop_scale_max = 1.0;
  double crop_ratio_min = 3.0 / 4.0;
  double crop_ratio_max = 4.0 / 3.0;
  double flip = 0.0;  ///< off: captions say "left" and "right"
  double jitter = 1.0;
  double brightness = 0.0;
  double contrast = 0.0;
  double saturation = 0.0;
  double hue = 0.0;
  double grayscale = 0.0;
  double erase = 0.0;
  double erase_area_max = 0.25;
  Filter filter = Filter::kBicubic;
  EvaluationView evaluation = EvaluationView::kCentreCrop;
  double evaluation_crop = 1.0;
  bool scaled_decode = true;

  void fields(Fields& f);
  void validate() const;
};

/// Encoded bytes and the name that errors give them. Views; the owner keeps the bytes alive.
struct EncodedImage {
  std::span<const std::byte> bytes;
  std::string source;
};

/// A training view, RGB, `size` × `size`: random crop, resize, flip, colour jitter, grayscale. What is drawn
/// depends on the state of `random`, the configuration and the image's height and width only; seed it by
/// (seed, epoch, index).
Image augment(const Image& image, const AugmentConfig& config, int64_t size, Random& random);

/// The evaluation view, RGB, `size` × `size`. kCentreCrop takes the middle square of `evaluation_crop` times
/// the shorter side: resizing the shorter side to size ÷ evaluation_crop and cutting out the middle.
Image centre_view(const Image& image, const AugmentConfig& config, int64_t size);

/// `augment(decode_image(…))` in one go: draws the crop from the header and decodes only the blocks it
/// needs. The same pixels, unless `scaled_decode` lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size,
/// which happens where at least `kScaledDecodeGap` pixels a side remain for each one of the view (a mean
/// change below 1/255). Errors (kData) name the source.
Image load_augmented(const EncodedImage& encoded, const AugmentConfig& config, int64_t size, Random& random,
                     const DecodeOptions& options = {});

/// The same into `chw`: 3 × size × size bytes, planes of red, green and blue.
void load_augmented(const EncodedImage& encoded, const AugmentConfig& config, int64_t size, Random& random,
                    std::span<uint8_t> chw);

/// `centre_view(decode_image(…))` in one go, under the same rule.
Image load_centre_view(const EncodedImage& encoded, const AugmentConfig& config, int64_t size,
                       const DecodeOptions& options = {});
void load_centre_view(const EncodedImage& encoded, const AugmentConfig& config, int64_t size,
                      std::span<uint8_t> chw);

/// (value ÷ 255 − mean) ÷ std of each plane. `chw` and `result` have three planes of equal size.
void normalise(std::span<const uint8_t> chw, const std::array<float, 3>& mean,
               const std::array<float, 3>& std, std::span<float> result);

/// Source pixels a side for each pixel of the view that a scaled decode must leave. Measured mean changes, in
/// levels of 255, at 2, 3 and 4: photographs at most 1.8, 0.64 and 0.66, white noise 3.6, 1.6 and 0.92.
inline constexpr double kScaledDecodeGap = 4.0;

}  // namespace fathom
