#include "data/scenes/captions.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "data/scenes/program.h"
#include "data/scenes/words.h"

namespace fathom::scenes {
namespace {

using Texts = std::vector<std::string>;

constexpr uint64_t kCaptionStream = 0xca;
constexpr double kPlainOffset = 0.15;  ///< from where on "left of" is plain to see

std::string place_of(const Object& object) {
  const auto third = [](double value) { return value < 0.36 ? 0 : value > 0.64 ? 2 : 1; };
  constexpr std::array<std::array<const char*, 3>, 3> kPlaces = {
      {{"in the top left", "at the top", "in the top right"},
       {"on the left", "in the middle", "on the right"},
       {"in the bottom left", "at the bottom", "in the bottom right"}}};
  return kPlaces[static_cast<size_t>(third(object.y))][static_cast<size_t>(third(object.x))];
}

/// The direction in which `a` lies farthest from `b`, if it is plain to see.
std::optional<Direction> plain_direction(const Object& a, const Object& b) {
  std::optional<Direction> best;
  double farthest = kPlainOffset;
  for (int i = 0; i < 4; ++i) {
    const auto direction = static_cast<Direction>(i);
    if (offset(a, b, direction) < farthest) continue;
    farthest = offset(a, b, direction);
    best = direction;
  }
  return best;
}

std::string relation_words(const Object& a, const Object& b, Random& random) {
  static const std::array<Texts, 4> kWords = {{{"to the left of", "left of"},
                                               {"to the right of", "right of"},
                                               {"above", "over"},
                                               {"below", "under"}}};
  const auto direction = plain_direction(a, b);
  return direction ? pick(kWords[static_cast<size_t>(*direction)], random) : "next to";
}

/// Writes sentences about one scene; what is said of an object is drawn anew in each.
class Writer {
 public:
  Writer(const Scene& scene, Random& random) : scene_(scene), random_(random) {}

  std::string listing() const;
  std::string relation() const;
  std::string number() const;
  std::string places() const;
  std::string order() const;

 private:
  bool alone() const { return scene_.objects.size() == 1; }
  std::string background() const { return std::string(kBackgrounds[static_cast<size_t>(scene_.background)]); }
  std::vector<Object> shuffled() const {
    std::vector<Object> objects = scene_.objects;
    random_.shuffle(objects);
    return objects;
  }
  Description mention(const Object& object) const;
  std::string phrase(const Object& object) const { return counted_phrase(mention(object)); }
  std::string group_phrase(const std::vector<Object>& group) const;
  Texts list_of_all() const;

  const Scene& scene_;
  Random& random_;
};

/// Colour and shape always; size and pattern more often the less there is to tell.
Description Writer::mention(const Object& object) const {
  const double eagerness = alone() ? 1.0 : scene_.objects.size() == 2 ? 0.75 : 0.5;
  std::vector<Attribute> said_attributes = {Attribute::kShape, Attribute::kColor};
  const bool is_plain = object.value(Attribute::kPattern) == 0;
  const bool is_medium = object.value(Attribute::kSize) == 1;
  if (random_.chance(is_plain ? 0.3 * eagerness : eagerness)) said_attributes.push_back(Attribute::kPattern);
  if (random_.chance(is_medium ? 0.3 * eagerness : eagerness)) said_attributes.push_back(Attribute::kSize);
  return describe(object, said_attributes);
}

/// Objects of one colour and shape: the rest is said where all share it.
std::string Writer::group_phrase(const std::vector<Object>& group) const {
  Description description = mention(group[0]);
  for (const Attribute attribute : {Attribute::kPattern, Attribute::kSize})
    for (const Object& object : group)
      if (object.value(attribute) != group[0].value(attribute)) said(description, attribute).reset();
  return counted_phrase(description, static_cast<int>(group.size()));
}

Texts Writer::list_of_all() const {
  std::vector<std::vector<Object>> groups;
  for (const Object& object : shuffled()) {
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
      return fits(describe(group[0], {Attribute::kShape, Attribute::kColor}), object);
    });
    if (same == groups.end()) {
      groups.push_back({object});
    } else {
      same->push_back(object);
    }
  }
  Texts phrases;
  for (const auto& group : groups) phrases.push_back(group_phrase(group));
  return phrases;
}

std::string Writer::listing() const {
  const Texts phrases = list_of_all();
  const std::string list = join_with_and(phrases);
  const bool singular = phrases[0].starts_with("a ") || phrases[0].starts_with("an ");
  switch (random_.below(5)) {
    case 0:
      return list;
    case 1:
      return (singular ? "there is " : "there are ") + list;
    case 2:
      return "a picture of " + list;
    case 3:
      return "a " + background() + " scene with " + list;
    default:
      return list + " on a " + background() + " background";
  }
}

std::string Writer::relation() const {
  const auto objects = shuffled();
  if (alone()) return "there is " + phrase(objects[0]) + " " + place_of(objects[0]);
  std::string text = phrase(objects[0]) + (random_.chance(0.4) ? " is " : " ") +
                     relation_words(objects[0], objects[1], random_) + " " + phrase(objects[1]);
  if (objects.size() == 2) return text;
  if (random_.chance(0.5)) return text + ", with " + phrase(objects[2]) + " " + place_of(objects[2]);
  return text + " and " + relation_words(objects[0], objects[2], random_) + " " + phrase(objects[2]);
}

std::string Writer::number() const {
  if (alone())
    return "a single " + noun_phrase(mention(scene_.objects[0])) + " " + place_of(scene_.objects[0]);
  const auto objects = shuffled();
  const auto num_objects = static_cast<int>(objects.size());
  const std::string total = number_word(num_objects) + (random_.chance(0.5) ? " shapes" : " objects");
  const CountPlan& plan = scene_.plan;
  if (plan.attribute == Attribute::kColor && plan.count >= 2 && plan.count < num_objects &&
      random_.chance(0.6))
    return total + ", " + number_word(plan.count) + " of them " +
           std::string(value_name(plan.attribute, plan.value)) + ", among them " + phrase(objects[0]) +
           " and " + phrase(objects[1]);
  return total + ": " + join_with_and(list_of_all());
}

std::string Writer::places() const {
  const auto objects = shuffled();
  Texts parts;
  for (size_t i = 0; i < std::min<size_t>(objects.size(), 3); ++i)
    parts.push_back(phrase(objects[i]) + " " + place_of(objects[i]));
  const std::string list = join_with_and(parts);
  return random_.chance(0.3) ? "the picture shows " + list : list;
}

std::string Writer::order() const {
  if (alone())
    return "a " + background() + " background with " + phrase(scene_.objects[0]) + " " +
           place_of(scene_.objects[0]);
  const auto sorted_by = [&](double Object::*axis) {
    auto objects = scene_.objects;
    std::sort(objects.begin(), objects.end(),
              [&](const Object& a, const Object& b) { return a.*axis < b.*axis; });
    double gap = 1;
    for (size_t i = 1; i < objects.size(); ++i) gap = std::min(gap, objects[i].*axis - objects[i - 1].*axis);
    return std::pair(gap, objects);
  };
  const auto [x_gap, by_x] = sorted_by(&Object::x);
  const auto [y_gap, by_y] = sorted_by(&Object::y);
  Texts parts;
  for (const Object& object : x_gap >= y_gap ? by_x : by_y) parts.push_back(phrase(object));
  return (x_gap >= y_gap ? "from left to right: " : "from top to bottom: ") + join_with_and(parts);
}

}  // namespace

std::vector<std::string> make_captions(const Scene& scene) {
  Random random({static_cast<uint64_t>(kScenesVersion), static_cast<uint64_t>(scene.split),
                 static_cast<uint64_t>(scene.seed), static_cast<uint64_t>(scene.index), kCaptionStream});
  const Writer writer(scene, random);
  constexpr std::array kForms = {&Writer::listing, &Writer::relation, &Writer::number, &Writer::places,
                                 &Writer::order};
  static_assert(kForms.size() == kCaptionsPerScene);
  Texts captions;
  for (const auto form : kForms) {
    std::string caption = (writer.*form)();
    while (std::find(captions.begin(), captions.end(), caption) != captions.end()) caption = writer.listing();
    captions.push_back(std::move(caption));
  }
  return captions;
}

}  // namespace fathom::scenes
