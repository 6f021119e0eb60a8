// Pictures that are bright where something was. H, W pixels.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "data/sample.h"

namespace fathom {

/// `image`, each pixel as bright as `light_HW` says (float32 on the CPU, 0 to 1, of the image's size); where
/// it is 0 a fifth of the light is left.
Image lit(Image image, const at::Tensor& light_HW);

/// "data:image/jpeg;base64,…".
std::string jpeg_uri(const Image& image);

}  // namespace fathom
