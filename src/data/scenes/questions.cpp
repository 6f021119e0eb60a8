#include "data/scenes/questions.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/random.h"
#include "data/scenes/words.h"

namespace fathom::scenes {
namespace {

using Texts = std::vector<std::string>;

constexpr uint64_t kQuestionStream = 0x9e;
constexpr double kClearOffset = 0.12;  ///< from where on "left of" is beyond doubt
constexpr int kTries = 40;

/// A question before its answer is computed; `kind` is filled in by the table at the end.
struct Draft {
  std::string text;
  Program program;
};

class ProgramBuilder {
 public:
  int add(std::string name, std::vector<int> inputs, std::string value = "") {
    program_.push_back({std::move(name), std::move(inputs), std::move(value)});
    return static_cast<int>(program_.size()) - 1;
  }
  /// All objects that fit; every description begins from the scene anew.
  int set(const Description& description) {
    int last = add("scene", {});
    for (const Attribute attribute : kAttributes)
      if (const auto& value = said(description, attribute))
        last = add("filter_" + std::string(attribute_name(attribute)), {last},
                   std::string(value_name(attribute, *value)));
    return last;
  }
  int object(const Description& description) { return add("unique", {set(description)}); }
  Program finish(std::string name, std::vector<int> inputs) {
    add(std::move(name), std::move(inputs));
    return std::move(program_);
  }

 private:
  Program program_;
};

std::string with_attribute(std::string_view prefix, Attribute attribute) {
  return std::string(prefix) + std::string(attribute_name(attribute));
}

Description only(Attribute attribute, int value) {
  Description description;
  said(description, attribute) = value;
  return description;
}

/// Drafts one question of each kind about one scene; nothing where the scene does not allow one.
class Drafter {
 public:
  Drafter(const Scene& scene, Random& random) : scene_(scene), random_(random) {}

  std::optional<Draft> exist() const;
  std::optional<Draft> count() const;
  std::optional<Draft> query_color() const {
    return query(Attribute::kColor, {"what color is ", "which color is "});
  }
  std::optional<Draft> query_shape() const {
    return query(Attribute::kShape, {"what shape is ", "which shape is "});
  }
  std::optional<Draft> query_size() const {
    return query(Attribute::kSize, {"what size is ", "how big is "});
  }
  std::optional<Draft> query_pattern() const {
    return query(Attribute::kPattern, {"what is the pattern of ", "which pattern is on "});
  }
  std::optional<Draft> compare_count() const;
  std::optional<Draft> compare_same() const;
  std::optional<Draft> relate() const;
  std::optional<Draft> relate_query() const;

 private:
  std::optional<Draft> query(Attribute attribute, const Texts& beginnings) const;
  const Object& any_object() const { return pick(scene_.objects, random_); }
  size_t any_position() const {
    return static_cast<size_t>(random_.below(static_cast<int64_t>(scene_.objects.size())));
  }
  Description absent_like(const Object& model, const std::vector<Attribute>& attributes) const;
  std::vector<std::pair<size_t, size_t>> pairs(Attribute attribute, bool same) const;

  const Scene& scene_;
  Random& random_;
};

/// A description that no object fits, drawn as the attributes of objects are drawn: held out if the model is.
Description Drafter::absent_like(const Object& model, const std::vector<Attribute>& attributes) const {
  const bool held_out = is_held_out(model.value(Attribute::kShape), model.value(Attribute::kColor));
  while (true) {
    Object drawn;
    for (const Attribute attribute : kAttributes)
      drawn.attributes[static_cast<size_t>(attribute)] =
          static_cast<int>(random_.below(num_values(attribute)));
    if (is_held_out(drawn.attributes[0], drawn.attributes[1]) != held_out) continue;
    const Description description = describe(drawn, attributes);
    if (count_fitting(description, scene_) == 0) return description;
  }
}

std::optional<Draft> Drafter::exist() const {
  static const std::array<std::vector<Attribute>, 4> kSaid = {{{Attribute::kShape},
                                                               {Attribute::kColor},
                                                               {Attribute::kShape, Attribute::kColor},
                                                               {Attribute::kShape, Attribute::kSize}}};
  static const Texts kBeginnings = {"is there ", "can you see ", "does the picture show "};
  const auto& attributes = pick(kSaid, random_);
  const Object& model = any_object();
  const Description description =
      random_.chance(0.5) ? describe(model, attributes) : absent_like(model, attributes);
  ProgramBuilder program;
  const int set = program.set(description);
  return Draft{pick(kBeginnings, random_) + counted_phrase(description) + "?",
               program.finish("exist", {set})};
}

std::optional<Draft> Drafter::count() const {
  static const Texts kEndings = {" are there?", " do you see?", " does the picture show?"};
  const Description description = only(scene_.plan.attribute, scene_.plan.value);
  ProgramBuilder program;
  const int set = program.set(description);
  return Draft{"how many " + noun_phrase(description, 2) + pick(kEndings, random_),
               program.finish("count", {set})};
}

std::optional<Draft> Drafter::query(Attribute attribute, const Texts& beginnings) const {
  const auto description = refer(scene_, any_position(), attribute, random_);
  if (!description) return std::nullopt;
  ProgramBuilder program;
  const int object = program.object(*description);
  return Draft{pick(beginnings, random_) + definite_phrase(*description) + "?",
               program.finish(with_attribute("query_", attribute), {object})};
}

/// Two colours or two shapes, of which one is there; which of them is named first is a coin's choice.
std::optional<Draft> Drafter::compare_count() const {
  const Attribute attribute = random_.chance(0.5) ? Attribute::kColor : Attribute::kShape;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    Description a = only(attribute, any_object().value(attribute));
    Description b = random_.chance(0.7)
                        ? only(attribute, any_object().value(attribute))
                        : only(attribute, static_cast<int>(random_.below(num_values(attribute))));
    if (count_fitting(a, scene_) == count_fitting(b, scene_)) continue;
    if (random_.chance(0.5)) std::swap(a, b);
    ProgramBuilder program;
    const int a_set = program.set(a);
    const int b_set = program.set(b);
    return Draft{"are there more " + noun_phrase(a, 2) + " than " + noun_phrase(b, 2) + "?",
                 program.finish("more", {a_set, b_set})};
  }
  return std::nullopt;
}

std::vector<std::pair<size_t, size_t>> Drafter::pairs(Attribute attribute, bool same) const {
  std::vector<std::pair<size_t, size_t>> found;
  for (size_t a = 0; a < scene_.objects.size(); ++a)
    for (size_t b = 0; b < scene_.objects.size(); ++b)
      if (a != b && (scene_.objects[a].value(attribute) == scene_.objects[b].value(attribute)) == same)
        found.emplace_back(a, b);
  return found;
}

/// Asked only where the scene has both equal and unequal pairs, so that the answer is a coin's choice.
std::optional<Draft> Drafter::compare_same() const {
  static const Texts kMiddles = {" the same ", " of the same "};
  const Attribute attribute = pick(kAttributes, random_);
  const auto equal = pairs(attribute, true);
  const auto unequal = pairs(attribute, false);
  if (equal.empty() || unequal.empty()) return std::nullopt;
  const bool same = random_.chance(0.5);
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const auto [a, b] = pick(same ? equal : unequal, random_);
    const auto a_description = refer(scene_, a, attribute, random_);
    const auto b_description = refer(scene_, b, attribute, random_);
    if (!a_description || !b_description) continue;
    ProgramBuilder program;
    const int a_object = program.object(*a_description);
    const int b_object = program.object(*b_description);
    return Draft{"are " + definite_phrase(*a_description) + " and " + definite_phrase(*b_description) +
                     pick(kMiddles, random_) + std::string(attribute_name(attribute)) + "?",
                 program.finish(with_attribute("same_", attribute), {a_object, b_object})};
  }
  return std::nullopt;
}

const char* direction_words(Direction direction) {
  constexpr std::array kWords = {"to the left of", "to the right of", "above", "below"};
  return kWords[static_cast<size_t>(direction)];
}

std::optional<Draft> Drafter::relate() const {
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const size_t a = any_position();
    const size_t b = any_position();
    const auto direction = static_cast<Direction>(random_.below(4));
    if (a == b || std::abs(offset(scene_.objects[a], scene_.objects[b], direction)) < kClearOffset) continue;
    const auto a_description = refer(scene_, a, std::nullopt, random_);
    const auto b_description = refer(scene_, b, std::nullopt, random_);
    if (!a_description || !b_description) continue;
    ProgramBuilder program;
    const int a_object = program.object(*a_description);
    const int b_object = program.object(*b_description);
    return Draft{"is " + definite_phrase(*a_description) + " " + direction_words(direction) + " " +
                     definite_phrase(*b_description) + "?",
                 program.finish("is_" + std::string(direction_name(direction)), {a_object, b_object})};
  }
  return std::nullopt;
}

/// Asked where exactly one object lies clearly on that side and no other is near the border.
std::optional<Draft> Drafter::relate_query() const {
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const size_t from = any_position();
    const auto direction = static_cast<Direction>(random_.below(4));
    int num_there = 0;
    bool doubtful = false;
    for (size_t i = 0; i < scene_.objects.size(); ++i) {
      if (i == from) continue;
      const double distance = offset(scene_.objects[i], scene_.objects[from], direction);
      num_there += distance > 0;
      doubtful |= std::abs(distance) < kClearOffset / 2;
    }
    const auto description = refer(scene_, from, std::nullopt, random_);
    if (num_there != 1 || doubtful || !description) continue;
    const Attribute attribute = random_.chance(0.5) ? Attribute::kColor : Attribute::kShape;
    ProgramBuilder program;
    const int origin = program.object(*description);
    const int there = program.add(std::string(direction_name(direction)), {origin});
    const int found = program.add("unique", {there});
    return Draft{"what " + std::string(attribute_name(attribute)) + " is the object " +
                     direction_words(direction) + " " + definite_phrase(*description) + "?",
                 program.finish(with_attribute("query_", attribute), {found})};
  }
  return std::nullopt;
}

}  // namespace

std::vector<Question> make_questions(const Scene& scene) {
  Random random({static_cast<uint64_t>(kScenesVersion), static_cast<uint64_t>(scene.split),
                 static_cast<uint64_t>(scene.seed), static_cast<uint64_t>(scene.index), kQuestionStream});
  const Drafter drafter(scene, random);
  using Form = std::optional<Draft> (Drafter::*)() const;
  constexpr std::array<Form, kQuestionKinds.size()> kForms = {
      &Drafter::exist,      &Drafter::count,         &Drafter::query_color,   &Drafter::query_shape,
      &Drafter::query_size, &Drafter::query_pattern, &Drafter::compare_count, &Drafter::compare_same,
      &Drafter::relate,     &Drafter::relate_query};
  std::vector<Question> questions;
  for (size_t i = 0; i < kForms.size(); ++i) {
    auto draft = (drafter.*kForms[i])();
    if (!draft) continue;
    std::string answer = execute(draft->program, scene);
    questions.push_back({std::string(kQuestionKinds[i]), std::move(draft->text), std::move(draft->program),
                         std::move(answer)});
  }
  return questions;
}

}  // namespace fathom::scenes
