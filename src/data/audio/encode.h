// Sound → bytes.
#pragma once

#include <string>

#include "data/sample.h"

namespace fathom {

/// A WAV file of 16 bits: samples beyond [-1, 1] are clipped, rounding is to the nearest.
std::string encode_wav(const Audio& audio);

}  // namespace fathom
