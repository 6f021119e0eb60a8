// Encoding in memory, for files that Fathom writes: the scenes world, reports, tests.
#pragma once

#include <string>

#include "data/sample.h"

namespace fathom {

/// PNG, RGB, 8 bits a channel, lossless.
std::string encode_png(const Image& image);

/// Baseline JPEG with 4:2:0 chroma (4:4:4 from quality 90 on). `quality` is libjpeg's, 1 to 100.
std::string encode_jpeg(const Image& image, int quality = 90);

}  // namespace fathom
