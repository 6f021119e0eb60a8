// What a scene sounds like.
#pragma once

#include <cstdint>

#include "data/sample.h"
#include "data/scenes/scene.h"

namespace fathom::scenes {

/// Raised whenever any sound changes for some (split, seed, index). Pictures, captions and questions do not
/// depend on it.
inline constexpr int64_t kSoundsVersion = 1;
inline constexpr int64_t kSoundRate = 16000;

/// One tone after another, one an object, from left to right: the shape is its timbre, the colour its pitch
/// (nine steps of four semitones from 220 Hz), the size its length (0.16, 0.23 or 0.32 s), the pattern how it
/// moves (steady, trembling, in beads, alternating between two pitches), the distance its loudness (12 dB
/// from nearest to farthest). Tuning (± 0.4 semitones), phases and a floor of noise are drawn from (split,
/// seed, index). Heights in the picture and the background are not heard. A pure function of the scene: at
/// most 1.8 s, 16 kHz, within [−1, 1].
Audio make_sound(const Scene& scene);

}  // namespace fathom::scenes
