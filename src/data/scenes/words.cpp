#include "data/scenes/words.h"

#include <algorithm>
#include <bit>

namespace fathom::scenes {
namespace {

// Order of adjectives in English; the shape is the noun.
constexpr std::array kAdjectives = {Attribute::kSize, Attribute::kPattern, Attribute::kColor};

bool starts_with_vowel(const std::string& word) {
  return std::string_view("aeiou").find(word[0]) != std::string_view::npos;
}

std::vector<Attribute> attributes_of(unsigned mask) {
  std::vector<Attribute> chosen;
  for (size_t i = 0; i < kAttributes.size(); ++i)
    if (mask >> i & 1) chosen.push_back(kAttributes[i]);
  return chosen;
}

std::string plural(const std::string& noun) {
  return noun == "cross" ? "crosses" : noun + "s";
}

}  // namespace

Description describe(const Object& object, const std::vector<Attribute>& attributes) {
  Description description;
  for (const Attribute attribute : attributes) said(description, attribute) = object.value(attribute);
  return description;
}

bool fits(const Description& description, const Object& object) {
  return std::all_of(kAttributes.begin(), kAttributes.end(), [&](Attribute attribute) {
    const auto& value = said(description, attribute);
    return !value || *value == object.value(attribute);
  });
}

int count_fitting(const Description& description, const Scene& scene) {
  return static_cast<int>(std::count_if(scene.objects.begin(), scene.objects.end(),
                                        [&](const Object& object) { return fits(description, object); }));
}

std::string noun_phrase(const Description& description, int num_objects) {
  std::string phrase;
  for (const Attribute attribute : kAdjectives)
    if (const auto& value = said(description, attribute)) phrase.append(value_name(attribute, *value)) += ' ';
  const auto& shape = said(description, Attribute::kShape);
  const std::string noun(shape ? value_name(Attribute::kShape, *shape) : "object");
  return phrase + (num_objects == 1 ? noun : plural(noun));
}

std::string counted_phrase(const Description& description, int num_objects) {
  const std::string phrase = noun_phrase(description, num_objects);
  if (num_objects != 1) return number_word(num_objects) + " " + phrase;
  return (starts_with_vowel(phrase) ? "an " : "a ") + phrase;
}

std::string definite_phrase(const Description& description) {
  return "the " + noun_phrase(description);
}

std::string number_word(int number) {
  constexpr std::array<const char*, 6> kWords = {"zero", "one", "two", "three", "four", "five"};
  return kWords.at(static_cast<size_t>(number));
}

std::string join_with_and(const std::vector<std::string>& parts) {
  std::string joined;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) joined += i + 1 == parts.size() ? " and " : ", ";
    joined += parts[i];
  }
  return joined;
}

std::optional<Description> refer(const Scene& scene, size_t object, std::optional<Attribute> hidden,
                                 Random& random) {
  for (int num_said = 1; num_said <= 4; ++num_said) {
    std::vector<Description> found;
    for (unsigned mask = 1; mask < 16; ++mask) {
      if (std::popcount(mask) != num_said || (hidden && mask >> static_cast<unsigned>(*hidden) & 1)) continue;
      const Description description = describe(scene.objects[object], attributes_of(mask));
      if (count_fitting(description, scene) == 1) found.push_back(description);
    }
    if (!found.empty()) return pick(found, random);
  }
  return std::nullopt;
}

}  // namespace fathom::scenes
