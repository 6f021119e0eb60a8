// The functional program behind a question, and the machine that runs it over a scene's true objects.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "data/scenes/scene.h"

namespace fathom::scenes {

/// One step; its inputs are the results of earlier steps. Operations:
///
///   scene                         → all objects
///   filter_{shape|color|…}(set)   → those with `value`
///   unique(set)                   → the only one (an error otherwise)
///   left_of, right_of, above, below(object) → the set of objects there
///   is_left_of, …(object, object) → "yes" or "no"
///   exist(set)                    → "yes" or "no"
///   count(set)                    → "0", "1", …
///   more(set, set)                → "yes" if the first is larger, else "no"
///   query_{shape|color|…}(object) → the value's name
///   same_{shape|color|…}(object, object) → "yes" or "no"
struct Operation {
  std::string name;
  std::vector<int> inputs;
  std::string value;  ///< of filters, else empty
};
using Program = std::vector<Operation>;

/// The answer of the last operation. Errors (kData): an unknown operation, inputs that do not fit, no unique
/// object.
std::string execute(const Program& program, const Scene& scene);

/// [{"op", "inputs", "value"?}, …]
Json program_to_json(const Program& program);

enum class Direction { kLeft, kRight, kAbove, kBelow };
constexpr std::string_view direction_name(Direction direction) {
  constexpr std::array<std::string_view, 4> kNames = {"left_of", "right_of", "above", "below"};
  return kNames[static_cast<size_t>(direction)];
}
/// How far `a` lies from `b` in a direction; negative on the other side.
double offset(const Object& a, const Object& b, Direction direction);

}  // namespace fathom::scenes
