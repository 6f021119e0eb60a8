#include "data/scenes/program.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>
#include <variant>

#include "base/error.h"

namespace fathom::scenes {
namespace {

using Set = std::vector<int>;                       ///< positions in the scene
using Value = std::variant<Set, int, std::string>;  ///< a set, one object, an answer

std::string yes_or_no(bool value) {
  return value ? "yes" : "no";
}

/// What stands behind "PREFIX_" in an operation's name as an attribute.
std::optional<Attribute> attribute_after(const std::string& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  for (const Attribute attribute : kAttributes)
    if (std::string_view(name).substr(prefix.size()) == attribute_name(attribute)) return attribute;
  return std::nullopt;
}

std::optional<Direction> direction_after(const std::string& name, std::string_view prefix) {
  for (int i = 0; i < 4; ++i) {
    const auto direction = static_cast<Direction>(i);
    if (name.starts_with(prefix) && std::string_view(name).substr(prefix.size()) == direction_name(direction))
      return direction;
  }
  return std::nullopt;
}

/// Runs one operation after another, with the results so far.
class Machine {
 public:
  explicit Machine(const Scene& scene) : scene_(scene) {}

  void run(const Operation& operation) {
    current_ = &operation;
    results_.push_back(evaluate(operation));
  }

  std::string answer() const {
    if (!results_.empty())
      if (const auto* text = std::get_if<std::string>(&results_.back())) return *text;
    fail(ErrorKind::kData, "the program ends without an answer");
  }

 private:
  Value evaluate(const Operation& operation) const {
    const std::string& name = operation.name;
    if (name == "scene") return select([](int) { return true; });
    if (name == "unique") return unique(set(0));
    if (name == "exist") return yes_or_no(!set(0).empty());
    if (name == "count") return std::to_string(set(0).size());
    if (name == "more") return yes_or_no(set(0).size() > set(1).size());
    if (const auto attribute = attribute_after(name, "filter_")) return filter(*attribute, operation.value);
    if (const auto attribute = attribute_after(name, "query_"))
      return std::string(value_of(object(0), *attribute));
    if (const auto attribute = attribute_after(name, "same_"))
      return yes_or_no(value_of(object(0), *attribute) == value_of(object(1), *attribute));
    if (const auto direction = direction_after(name, "is_"))
      return yes_or_no(offset(at(object(0)), at(object(1)), *direction) > 0);
    if (const auto direction = direction_after(name, ""))
      return select([&](int i) { return i != object(0) && offset(at(i), at(object(0)), *direction) > 0; });
    fail(ErrorKind::kData, "unknown operation \"{}\"", name);
  }

  Set select(const std::function<bool(int)>& keep) const {
    Set chosen;
    for (int i = 0; i < static_cast<int>(scene_.objects.size()); ++i)
      if (keep(i)) chosen.push_back(i);
    return chosen;
  }
  Set filter(Attribute attribute, const std::string& value) const {
    Set chosen = set(0);
    std::erase_if(chosen, [&](int i) { return value_of(i, attribute) != value; });
    return chosen;
  }
  int unique(const Set& found) const {
    if (found.size() != 1) fail(ErrorKind::kData, "unique: expected one object, got {}", found.size());
    return found[0];
  }

  const Object& at(int i) const { return scene_.objects[static_cast<size_t>(i)]; }
  std::string_view value_of(int i, Attribute attribute) const {
    return value_name(attribute, at(i).value(attribute));
  }

  template <typename Kind>
  const Kind& input(size_t position) const {
    const auto& inputs = current_->inputs;
    const bool exists = position < inputs.size() && inputs[position] >= 0 &&
                        inputs[position] < static_cast<int>(results_.size());
    const Kind* value =
        exists ? std::get_if<Kind>(&results_[static_cast<size_t>(inputs[position])]) : nullptr;
    if (!value) fail(ErrorKind::kData, "{}: input {} does not fit", current_->name, position);
    return *value;
  }
  const Set& set(size_t position) const { return input<Set>(position); }
  int object(size_t position) const { return input<int>(position); }

  const Scene& scene_;
  const Operation* current_ = nullptr;
  std::vector<Value> results_;
};

}  // namespace

double offset(const Object& a, const Object& b, Direction direction) {
  switch (direction) {
    case Direction::kLeft:
      return b.x - a.x;
    case Direction::kRight:
      return a.x - b.x;
    case Direction::kAbove:
      return b.y - a.y;
    case Direction::kBelow:
      return a.y - b.y;
  }
  return 0;
}

std::string execute(const Program& program, const Scene& scene) {
  Machine machine(scene);
  for (const Operation& operation : program) machine.run(operation);
  return machine.answer();
}

Json program_to_json(const Program& program) {
  Json list = Json::array();
  for (const Operation& operation : program) {
    Json item;
    item["op"] = operation.name;
    Json inputs = Json::array();
    for (const int input : operation.inputs) inputs.push_back(input);
    item["inputs"] = std::move(inputs);
    if (!operation.value.empty()) item["value"] = operation.value;
    list.push_back(std::move(item));
  }
  return list;
}

}  // namespace fathom::scenes
