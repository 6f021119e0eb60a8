// Captions: what a person might write under a scene.
#pragma once

#include <string>
#include <vector>

#include "data/scenes/scene.h"

namespace fathom::scenes {

inline constexpr int kCaptionsPerScene = 5;

/// `kCaptionsPerScene` different sentences, each true of the scene: a list of its objects, their relations,
/// their number, their places in the picture, their order. Each names colour and shape of two objects at
/// least (of the one, with size or pattern, where there is only one). A pure function of the scene.
std::vector<std::string> make_captions(const Scene& scene);

}  // namespace fathom::scenes
