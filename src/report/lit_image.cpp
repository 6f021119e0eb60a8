#include "report/lit_image.h"

#include <cmath>

#include "base/error.h"
#include "data/image/encode.h"
#include "report/html.h"

namespace fathom {
namespace {

constexpr double kLeastLight = 0.2;

}  // namespace

Image lit(Image image, const at::Tensor& light_HW) {
  FATHOM_CHECK(light_HW.size(0) == image.height && light_HW.size(1) == image.width,
               "[report] light of {} × {} on a picture of {} × {}", light_HW.size(0), light_HW.size(1),
               image.height, image.width);
  const at::Tensor contiguous_HW = light_HW.contiguous();
  const float* light = contiguous_HW.const_data_ptr<float>();
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    const double share = kLeastLight + (1 - kLeastLight) * static_cast<double>(light[i / 3]);
    image.pixels[i] = static_cast<uint8_t>(std::lround(share * image.pixels[i]));
  }
  return image;
}

std::string jpeg_uri(const Image& image) {
  return "data:image/jpeg;base64," + encode_base64(encode_jpeg(image, 85));
}

}  // namespace fathom
