// Words for objects: what captions and questions are built from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "data/scenes/scene.h"

namespace fathom::scenes {

/// Which of an object's attributes are said: the values of those that are, in the order of `Attribute`.
using Description = std::array<std::optional<int>, 4>;

inline std::optional<int>& said(Description& description, Attribute attribute) {
  return description[static_cast<size_t>(attribute)];
}
inline const std::optional<int>& said(const Description& description, Attribute attribute) {
  return description[static_cast<size_t>(attribute)];
}

/// The attributes in `attributes` of `object`.
Description describe(const Object& object, const std::vector<Attribute>& attributes);
bool fits(const Description& description, const Object& object);
int count_fitting(const Description& description, const Scene& scene);

/// "large striped red star"; "object" where the shape is not said. With `num_objects` ≠ 1 in the plural.
std::string noun_phrase(const Description& description, int num_objects = 1);
/// With "a", "an" or a number in words before it.
std::string counted_phrase(const Description& description, int num_objects = 1);
std::string definite_phrase(const Description& description);

/// "zero" … "five".
std::string number_word(int number);
/// "a, b and c".
std::string join_with_and(const std::vector<std::string>& parts);

/// The shortest description that fits this object alone and leaves `hidden` unsaid (among equally short ones,
/// drawn).
std::optional<Description> refer(const Scene& scene, size_t object, std::optional<Attribute> hidden,
                                 Random& random);

template <typename Choices>
const auto& pick(const Choices& choices, Random& random) {
  return choices[static_cast<size_t>(random.below(static_cast<int64_t>(std::size(choices))))];
}

}  // namespace fathom::scenes
