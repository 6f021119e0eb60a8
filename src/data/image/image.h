// The image pipeline's public face.
#pragma once

#include "data/image/augment.h"  // AugmentConfig, augment, centre_view, load_augmented
#include "data/image/decode.h"   // decode_image, load_image
#include "data/image/encode.h"   // encode_png, encode_jpeg
#include "data/image/resize.h"   // resize, Filter, Box
