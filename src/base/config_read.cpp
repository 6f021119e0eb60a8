// The visitor that reads a struct out of a tree and rejects what nobody asked for.
#include <algorithm>
#include <cmath>

#include "base/config_path.h"
#include "base/error.h"

namespace fathom {
namespace {

/// Number of single-character insertions, deletions, replacements and swaps of neighbours between two words.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      cost[i][j] =
          std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

/// Reads values out of a tree and reports what nobody asked for.
class ReadFields : public PathFields {
 public:
  explicit ReadFields(const ConfigTree& tree) : tree_(tree) { levels_.push_back({&tree.values, {}, ""}); }

  void finish(const std::function<void()>& validate) {
    report_unknown(levels_.back());
    validate_group(validate);
  }

  void operator()(const char* name, bool& value, const char*) override {
    if (const Json* found = take(name))
      value = expect(name, found->is_bool(), "true or false", *found).as_bool();
  }
  void operator()(const char* name, int64_t& value, const char*, Range range) override {
    if (const Json* found = take(name)) value = integer(name, *found, range);
  }
  void operator()(const char* name, double& value, const char*, Range range) override {
    if (const Json* found = take(name)) value = number(name, *found, range);
  }
  void operator()(const char* name, std::string& value, const char*) override {
    if (const Json* found = take(name))
      value = expect(name, found->is_string(), "a string", *found).as_string();
  }
  void operator()(const char* name, std::vector<int64_t>& value, const char*, Range range) override {
    read_list(name, value, [&](const Json& item) { return integer(name, item, range); });
  }
  void operator()(const char* name, std::vector<double>& value, const char*, Range range) override {
    read_list(name, value, [&](const Json& item) { return number(name, item, range); });
  }
  void operator()(const char* name, std::vector<std::string>& value, const char*) override {
    read_list(name, value,
              [&](const Json& item) { return expect(name, item.is_string(), "strings", item).as_string(); });
  }

 protected:
  void visit_choice(const char* name, int64_t& index, const char*,
                    const std::vector<std::string>& names) override {
    const Json* found = take(name);
    if (!found) return;
    const std::string& text = expect(name, found->is_string(), "a string", *found).as_string();
    const auto position = std::find(names.begin(), names.end(), text);
    if (position == names.end())
      reject(name, fmt::format("expected one of {}, got \"{}\"", quoted_list(names), text));
    index = position - names.begin();
  }
  void enter_group(const char* name, const char*) override {
    const Json* found = take(name);
    if (found) expect(name, found->is_object(), "a table", *found);
    levels_.push_back({found, {}, join(name)});
    PathFields::enter_group(name, "");
  }
  void leave_group() override {
    report_unknown(levels_.back());
    levels_.pop_back();
    PathFields::leave_group();
  }
  size_t list_size(const char* name, size_t current, const char*) override {
    const Json* found = take(name);
    return found ? expect(name, found->is_array(), "an array of tables", *found).size() : current;
  }
  void enter_item(const char* name, size_t index) override {
    const Json* list = levels_.back().values ? levels_.back().values->find(name) : nullptr;
    const Json* item = list && list->is_array() && index < list->size() ? &list->as_array()[index] : nullptr;
    if (item) expect(name, item->is_object(), "tables", *item);
    levels_.push_back({item, {}, fmt::format("{}[{}]", join(name), index)});
    PathFields::enter_item(name, index);
  }
  void leave_item() override {
    report_unknown(levels_.back());
    levels_.pop_back();
    PathFields::leave_item();
  }
  void validate_group(const std::function<void()>& validate) override {
    try {
      validate();
    } catch (const Error& error) {
      fail(error.kind(), "{}: {}", where(levels_.back().path), error.what());
    }
  }

 private:
  struct Level {
    const Json* values;
    std::vector<std::string> known;
    std::string path;
  };

  const Json* take(const char* name) {
    levels_.back().known.emplace_back(name);
    return levels_.back().values ? levels_.back().values->find(name) : nullptr;
  }

  [[noreturn]] void reject(const std::string& name, const std::string& reason) const {
    fail(ErrorKind::kConfig, "{}: {}", where(join(name)), reason);
  }

  std::string where(const std::string& path) const {
    if (path.empty()) return tree_.source;
    const auto line = tree_.lines.find(path);
    if (line == tree_.lines.end()) return fmt::format("{}: {}", tree_.source, path);
    return fmt::format("{}:{}: {}", tree_.source, line->second, path);
  }

  const Json& expect(const char* name, bool fits, const char* wanted, const Json& value) const {
    if (fits) return value;
    constexpr size_t kMostShown = 60;
    std::string shown = value.dump();
    if (shown.size() > kMostShown) shown = shown.substr(0, kMostShown) + "…";
    reject(name, fmt::format("expected {}, got {} {}", wanted, value.kind_name(), shown));
  }

  void check_range(const char* name, double value, Range range) const {
    if (value >= range.low && value <= range.high) return;
    if (std::isinf(range.high)) reject(name, fmt::format("expected at least {}, got {}", range.low, value));
    if (std::isinf(range.low)) reject(name, fmt::format("expected at most {}, got {}", range.high, value));
    reject(name, fmt::format("expected a value from {} to {}, got {}", range.low, range.high, value));
  }

  int64_t integer(const char* name, const Json& value, Range range) const {
    const int64_t result = expect(name, value.is_int(), "an integer", value).as_int();
    check_range(name, static_cast<double>(result), range);
    return result;
  }

  double number(const char* name, const Json& value, Range range) const {
    const double result = expect(name, value.is_number(), "a number", value).as_double();
    if (!std::isfinite(result)) reject(name, "expected a finite number");
    check_range(name, result, range);
    return result;
  }

  template <typename Item, typename Convert>
  void read_list(const char* name, std::vector<Item>& value, const Convert& convert) {
    const Json* found = take(name);
    if (!found) return;
    expect(name, found->is_array(), "a list", *found);
    value.clear();
    for (const Json& item : found->as_array()) value.push_back(convert(item));
  }

  void report_unknown(const Level& level) const {
    if (!level.values) return;
    for (const auto& [key, value] : level.values->as_object()) {
      if (std::find(level.known.begin(), level.known.end(), key) != level.known.end()) continue;
      const std::string path = level.path.empty() ? key : level.path + "." + key;
      const std::string near = nearest_name(key, level.known);
      const std::string hint = near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near);
      fail(ErrorKind::kConfig, "{}: unknown key{}", where(path), hint);
    }
  }

  const ConfigTree& tree_;
  std::vector<Level> levels_;
};

}  // namespace

std::string quoted_list(const std::vector<std::string>& names) {
  std::string result;
  for (const std::string& name : names) result += (result.empty() ? "\"" : ", \"") + name + "\"";
  return result;
}

namespace detail {

void read_fields(const ConfigTree& tree, const std::function<void(Fields&)>& visit,
                 const std::function<void()>& validate) {
  ReadFields reader(tree);
  visit(reader);
  reader.finish(validate);
}

}  // namespace detail

std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace fathom
