#include "data/scenes/scene.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "base/error.h"
#include "base/random.h"
#include "data/scenes/shapes.h"

namespace fathom::scenes {
namespace {

constexpr std::array kRadii = {0.095, 0.14, 0.195};
constexpr int kMaxPlannedCount = 4;
constexpr int kGrid = 24;  ///< points a side over an object's bounding box, for occlusion

CountPlan draw_plan(Random& random, int max_objects) {
  const Attribute attribute = random.chance(0.5) ? Attribute::kColor : Attribute::kShape;
  const auto value = static_cast<int>(random.below(num_values(attribute)));
  const int most = std::min(kMaxPlannedCount, max_objects);
  return {attribute, value, static_cast<int>(random.below(most + 1))};
}

/// A shape and a colour, held out or not as asked, with the planned value or without it as asked.
Attributes draw_attributes(Random& random, const CountPlan& plan, bool planned, bool held_out) {
  while (true) {
    Attributes drawn;
    for (const Attribute attribute : kAttributes)
      drawn[static_cast<size_t>(attribute)] = static_cast<int>(random.below(num_values(attribute)));
    const bool has_value = drawn[static_cast<size_t>(plan.attribute)] == plan.value;
    if (has_value == planned && is_held_out(drawn[0], drawn[1]) == held_out) return drawn;
  }
}

std::vector<Object> draw_objects(Random& random, const CountPlan& plan, int max_objects, bool unseen) {
  const int fewest = std::max(1, plan.count);
  const auto count = fewest + static_cast<int>(random.below(max_objects - fewest + 1));
  const auto surely_held_out = static_cast<int>(random.below(count));
  std::vector<Object> objects(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    Object& object = objects[static_cast<size_t>(i)];
    const bool held_out = unseen && (i == surely_held_out || random.chance(0.3));
    object.attributes = draw_attributes(random, plan, i < plan.count, held_out);
    object.radius = kRadii[static_cast<size_t>(object.value(Attribute::kSize))] * random.uniform(0.95, 1.05);
    object.rotation = random.uniform(-0.2, 0.2);
    object.shade = random.uniform(-1, 1);
    object.distance = random.uniform();
  }
  std::sort(objects.begin(), objects.end(),
            [](const Object& a, const Object& b) { return a.distance > b.distance; });
  return objects;
}

/// Centres far enough apart that neither hides too much; `spacing` 1 means that the circles around them only
/// touch.
bool is_clear(const std::vector<Object>& objects, size_t i, double spacing) {
  for (size_t k = 0; k < i; ++k) {
    const double gap = std::hypot(objects[k].x - objects[i].x, objects[k].y - objects[i].y);
    if (gap < spacing * (objects[k].radius + objects[i].radius)) return false;
  }
  return true;
}

bool place_once(Random& random, std::vector<Object>& objects, double spacing) {
  constexpr int kTries = 30;
  for (size_t i = 0; i < objects.size(); ++i) {
    Object& object = objects[i];
    bool clear = false;
    for (int attempt = 0; attempt < kTries && !clear; ++attempt) {
      object.x = random.uniform(object.radius, 1 - object.radius);
      object.y = random.uniform(object.radius, 1 - object.radius);
      clear = is_clear(objects, i, spacing);
    }
    if (!clear) return false;
  }
  return true;
}

/// Two scenes in three begin without any overlap; crowded ones are packed tighter until they fit.
void place(Random& random, Scene& scene) {
  double spacing = random.chance(0.67) ? 1.02 : 0.7;
  for (int attempt = 1;; ++attempt) {
    if (place_once(random, scene.objects, spacing)) {
      const auto hidden = occlusion(scene);
      if (*std::max_element(hidden.begin(), hidden.end()) <= kMaxOcclusion) return;
    }
    if (attempt % 5 == 0) spacing = std::max(0.6, spacing - 0.05);
  }
}

}  // namespace

std::vector<double> occlusion(const Scene& scene) {
  const std::vector<Frame> frames(scene.objects.begin(), scene.objects.end());
  const auto covers = [&](size_t i, Point point) {
    return shape_distance(scene.objects[i].value(Attribute::kShape), frames[i].to_object(point)) < 0;
  };
  const auto may_overlap = [&](const Object& object, const Object& other) {
    constexpr double kSlack = 1.1;  // corners reach a little beyond the radius
    return std::hypot(object.x - other.x, object.y - other.y) < kSlack * (object.radius + other.radius);
  };
  std::vector<double> hidden(scene.objects.size(), 0.0);
  for (size_t i = 0; i < scene.objects.size(); ++i) {
    const Object& object = scene.objects[i];
    const auto nearer = scene.objects.begin() + static_cast<std::ptrdiff_t>(i) + 1;
    if (std::none_of(nearer, scene.objects.end(),
                     [&](const Object& other) { return may_overlap(object, other); }))
      continue;
    int num_inside = 0;
    int num_hidden = 0;
    for (int cell = 0; cell < kGrid * kGrid; ++cell) {
      const Point point{object.x + object.radius * ((cell % kGrid + 0.5) * 2 / kGrid - 1),
                        object.y + object.radius * ((cell / kGrid + 0.5) * 2 / kGrid - 1)};
      if (!covers(i, point)) continue;
      ++num_inside;
      bool is_hidden = false;
      for (size_t k = i + 1; k < scene.objects.size() && !is_hidden; ++k) is_hidden = covers(k, point);
      num_hidden += is_hidden;
    }
    hidden[i] = static_cast<double>(num_hidden) / num_inside;
  }
  return hidden;
}

Scene make_scene(Split split, int64_t seed, int64_t index, int max_objects) {
  FATHOM_CHECK(index >= 0, "[make_scene] expected an index from 0, got {}", index);
  FATHOM_CHECK(max_objects >= 1 && max_objects <= kMaxObjects,
               "[make_scene] expected at most 1 to {} objects, got {}", kMaxObjects, max_objects);
  Random random({static_cast<uint64_t>(kScenesVersion), static_cast<uint64_t>(split),
                 static_cast<uint64_t>(seed), static_cast<uint64_t>(index)});
  Scene scene;
  scene.split = split;
  scene.seed = seed;
  scene.index = index;
  scene.unseen = split == Split::kVal && index % 2 == 1;
  scene.plan = draw_plan(random, max_objects);
  scene.objects = draw_objects(random, scene.plan, max_objects, scene.unseen);
  scene.background = static_cast<int>(random.below(kBackgrounds.size()));
  scene.light_angle = random.uniform(0, 2 * std::numbers::pi);
  scene.light = random.uniform(0.2, 1.0);
  place(random, scene);
  return scene;
}

Json objects_to_json(const Scene& scene) {
  const auto rounded = [](double value) { return std::round(value * 1e4) / 1e4; };
  Json list = Json::array();
  for (const Object& object : scene.objects) {
    Json item;
    for (const Attribute attribute : kAttributes)
      item[attribute_name(attribute)] = value_name(attribute, object.value(attribute));
    item["x"] = rounded(object.x);
    item["y"] = rounded(object.y);
    item["radius"] = rounded(object.radius);
    item["distance"] = rounded(object.distance);
    list.push_back(std::move(item));
  }
  return list;
}

}  // namespace fathom::scenes
