// Questions of ten kinds about a scene, each with the program that answers it.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "data/scenes/program.h"
#include "data/scenes/scene.h"

namespace fathom::scenes {

inline constexpr std::array<std::string_view, 10> kQuestionKinds = {
    "exist",         "count",         "query_color",  "query_shape", "query_size",
    "query_pattern", "compare_count", "compare_same", "relate",      "relate_query"};

struct Question {
  std::string kind;
  std::string text;
  Program program;
  std::string answer;  ///< what `execute(program, scene)` gives
};

/// At most one question of each kind: those that the scene allows. Wherever an answer could follow from the
/// words (yes or no, how many), it is drawn before the words, so that the words alone say nothing. A pure
/// function of the scene.
std::vector<Question> make_questions(const Scene& scene);

}  // namespace fathom::scenes
