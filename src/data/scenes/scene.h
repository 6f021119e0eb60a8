// A scene: a handful of objects before a background, as a pure function of (split, seed, index) and of how
// many objects there may be.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "data/scenes/vocabulary.h"

namespace fathom::scenes {

/// Raised whenever any picture, caption or question changes for some (split, seed, index, most objects).
inline constexpr int64_t kScenesVersion = 1;

inline constexpr int kMaxObjects = 5;
inline constexpr double kMaxOcclusion = 0.4;  ///< share of an object's area that nearer ones may hide

enum class Split { kTrain, kVal };
constexpr const char* split_name(Split split) {
  return split == Split::kTrain ? "train" : "val";
}

/// Lengths in units of the picture's side; x to the right, y down.
struct Object {
  Attributes attributes{};
  double x = 0;
  double y = 0;
  double radius = 0;    ///< of the circle that the shape fits into
  double rotation = 0;  ///< radians
  double shade = 0;     ///< −1 (darker) … 1 (lighter) than the colour's mean
  double distance = 0;  ///< from the viewer, 0 … 1; nearer objects hide farther ones

  int value(Attribute attribute) const { return attributes[static_cast<size_t>(attribute)]; }
};

/// `count` objects of the scene have this value: drawn first and uniformly, so that the answer to the count
/// question does not follow from its words.
struct CountPlan {
  Attribute attribute = Attribute::kColor;
  int value = 0;
  int count = 0;
};

struct Scene {
  Split split = Split::kTrain;
  int64_t seed = 0;
  int64_t index = 0;
  bool unseen = false;          ///< holds a combination of `is_held_out`
  std::vector<Object> objects;  ///< farthest first: the order of drawing
  CountPlan plan;
  int background = 0;      ///< index into kBackgrounds
  double light_angle = 0;  ///< direction from which the background is lit, radians
  double light = 0;        ///< strength of that gradient, 0 … 1
};

/// A scene of one to `max_objects` objects. Those of kVal with odd index are unseen ones. REQUIRES index ≥ 0
/// and 1 ≤ max_objects ≤ kMaxObjects. Source of the idea: Johnson et al., "CLEVR", CVPR 2017.
Scene make_scene(Split split, int64_t seed, int64_t index, int max_objects = kMaxObjects);

/// Share of each object's area that nearer objects hide, measured on a grid of points.
std::vector<double> occlusion(const Scene& scene);

/// [{"shape", "color", "pattern", "size", "x", "y", "radius", "distance"}, …], nearest last.
Json objects_to_json(const Scene& scene);

}  // namespace fathom::scenes
