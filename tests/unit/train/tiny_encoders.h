// Encoders small enough to be trained in double, with all that draws random numbers.
#pragma once

#include "models/language/config.h"
#include "models/swin/config.h"

namespace fathom::testing {

inline SwinConfig tiny_vision() {
  return {.image_size = 16,
          .patch_size = 2,
          .dim = 8,
          .depths = {1, 1},
          .heads = {2, 2},
          .window = 4,
          .drop_path = 0.2};
}

inline LanguageModelConfig tiny_text() {
  return {.vocab_size = 50, .dim = 16, .layers = 2, .heads = 2, .max_positions = 12, .dropout = 0.1};
}

}  // namespace fathom::testing
