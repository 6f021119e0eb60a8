// What an object of the scenes world can be: the words and their numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace fathom::scenes {

enum class Attribute { kShape, kColor, kPattern, kSize };
inline constexpr std::array kAttributes = {Attribute::kShape, Attribute::kColor, Attribute::kPattern,
                                           Attribute::kSize};

inline constexpr std::array<std::string_view, 10> kShapes = {
    "circle", "square", "triangle", "diamond", "pentagon", "star", "cross", "heart", "crescent", "ring"};
inline constexpr std::array<std::string_view, 9> kColors = {"red",    "orange", "yellow", "green", "blue",
                                                            "purple", "pink",   "brown",  "black"};
inline constexpr std::array<std::string_view, 4> kPatterns = {"plain", "striped", "dotted", "checkered"};
inline constexpr std::array<std::string_view, 3> kSizes = {"small", "medium", "large"};
inline constexpr std::array<std::string_view, 5> kBackgrounds = {"grey", "beige", "light blue", "light green",
                                                                 "pale pink"};

/// Indices into the tables above, in the order of `Attribute`.
using Attributes = std::array<int, 4>;

constexpr int num_values(Attribute attribute) {
  constexpr std::array kCounts = {kShapes.size(), kColors.size(), kPatterns.size(), kSizes.size()};
  return static_cast<int>(kCounts[static_cast<size_t>(attribute)]);
}

constexpr std::string_view attribute_name(Attribute attribute) {
  constexpr std::array<std::string_view, 4> kNames = {"shape", "color", "pattern", "size"};
  return kNames[static_cast<size_t>(attribute)];
}

constexpr std::string_view value_name(Attribute attribute, int value) {
  const auto i = static_cast<size_t>(value);
  switch (attribute) {
    case Attribute::kShape:
      return kShapes[i];
    case Attribute::kColor:
      return kColors[i];
    case Attribute::kPattern:
      return kPatterns[i];
    case Attribute::kSize:
      return kSizes[i];
  }
  return {};
}

/// Combinations that `train` never shows: one colour for each shape, spread so that every colour and every
/// shape is seen in other company.
constexpr bool is_held_out(int shape, int color) {
  return (4 * shape + color) % static_cast<int>(kColors.size()) == 0;
}

}  // namespace fathom::scenes
