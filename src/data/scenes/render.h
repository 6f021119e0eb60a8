// Draws a scene.
#pragma once

#include <cstdint>

#include "data/sample.h"
#include "data/scenes/scene.h"

namespace fathom::scenes {

/// RGB, `size` × `size`, anti-aliased. A pure function of its arguments. REQUIRES size ≥ 16.
Image render(const Scene& scene, int64_t size);

}  // namespace fathom::scenes
