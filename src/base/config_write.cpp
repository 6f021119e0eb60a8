// The visitors that write a struct: as JSON for a record, as Markdown for the reference page.
#include <cmath>

#include "base/config_path.h"
#include "base/error.h"

namespace fathom {
namespace {

/// Writes every value into a JSON object.
class WriteFields : public Fields {
 public:
  WriteFields() { stack_.push_back(Json::object()); }
  Json take() { return std::move(stack_.back()); }

  void operator()(const char* name, bool& value, const char*) override { put(name, value); }
  void operator()(const char* name, int64_t& value, const char*, Range) override { put(name, value); }
  void operator()(const char* name, double& value, const char*, Range) override { put(name, value); }
  void operator()(const char* name, std::string& value, const char*) override { put(name, value); }
  void operator()(const char* name, std::vector<int64_t>& value, const char*, Range) override {
    put_list(name, value);
  }
  void operator()(const char* name, std::vector<double>& value, const char*, Range) override {
    put_list(name, value);
  }
  void operator()(const char* name, std::vector<std::string>& value, const char*) override {
    put_list(name, value);
  }

 protected:
  void visit_choice(const char* name, int64_t& index, const char*,
                    const std::vector<std::string>& names) override {
    put(name, names[static_cast<size_t>(index)]);
  }
  void enter_group(const char* name, const char*) override {
    names_.emplace_back(name);
    stack_.push_back(Json::object());
  }
  void leave_group() override {
    Json value = std::move(stack_.back());
    stack_.pop_back();
    put(names_.back().c_str(), std::move(value));
    names_.pop_back();
  }
  size_t list_size(const char* name, size_t current, const char*) override {
    put(name, Json::array());
    return current;
  }
  void enter_item(const char* name, size_t) override { enter_group(name, ""); }
  void leave_item() override {
    Json value = std::move(stack_.back());
    stack_.pop_back();
    stack_.back()[names_.back()].push_back(std::move(value));
    names_.pop_back();
  }

 private:
  void put(const char* name, Json value) { stack_.back()[name] = std::move(value); }
  template <typename Item>
  void put_list(const char* name, const std::vector<Item>& values) {
    Json list = Json::array();
    for (const Item& item : values) list.push_back(item);
    put(name, std::move(list));
  }

  std::vector<Json> stack_;
  std::vector<std::string> names_;
};

/// Writes a Markdown table a group.
class DocumentFields : public PathFields {
 public:
  std::string take() {
    std::string page;
    for (const auto& [path, section] : sections_) page += section;
    return page;
  }
  DocumentFields() { begin_section("", ""); }

  void operator()(const char* name, bool& value, const char* help) override {
    row(name, "boolean", value ? "true" : "false", "", help);
  }
  void operator()(const char* name, int64_t& value, const char* help, Range range) override {
    row(name, "integer", std::to_string(value), show(range), help);
  }
  void operator()(const char* name, double& value, const char* help, Range range) override {
    row(name, "number", fmt::format("{}", value), show(range), help);
  }
  void operator()(const char* name, std::string& value, const char* help) override {
    row(name, "string", "\"" + value + "\"", "", help);
  }
  void operator()(const char* name, std::vector<int64_t>& value, const char* help, Range range) override {
    row(name, "list of integers", Json(items(value)).dump(), show(range), help);
  }
  void operator()(const char* name, std::vector<double>& value, const char* help, Range range) override {
    row(name, "list of numbers", Json(items(value)).dump(), show(range), help);
  }
  void operator()(const char* name, std::vector<std::string>& value, const char* help) override {
    row(name, "list of strings", Json(items(value)).dump(), "", help);
  }

 protected:
  void visit_choice(const char* name, int64_t& index, const char* help,
                    const std::vector<std::string>& names) override {
    row(name, "choice", "\"" + names[static_cast<size_t>(index)] + "\"", quoted_list(names), help);
  }
  void enter_group(const char* name, const char* help) override {
    PathFields::enter_group(name, help);
    open_.push_back(sections_.size());
    begin_section(fmt::format("\n## `[{}]`\n\n", join_here()), help);
  }
  void leave_group() override {
    PathFields::leave_group();
    open_.pop_back();
  }
  size_t list_size(const char* name, size_t current, const char* help) override {
    list_help_ = help;
    static_cast<void>(name);
    return current;
  }
  void enter_item(const char* name, size_t index) override {
    PathFields::enter_item(name, index);
    open_.push_back(sections_.size());
    begin_section(fmt::format("\n## `[[{}]]`\n\n", join_here()), list_help_);
  }
  void leave_item() override {
    PathFields::leave_item();
    open_.pop_back();
  }
  bool wants_example() const override { return true; }

 private:
  template <typename Item>
  static Json::Array items(const std::vector<Item>& values) {
    return Json::Array(values.begin(), values.end());
  }
  static std::string show(Range range) {
    const bool low = std::isfinite(range.low), high = std::isfinite(range.high);
    if (low && high) return fmt::format("{} to {}", range.low, range.high);
    if (low) return fmt::format("≥ {}", range.low);
    return high ? fmt::format("≤ {}", range.high) : "";
  }
  std::string join_here() const {
    std::string path = join("");
    if (!path.empty() && path.back() == '.') path.pop_back();
    // Numbers of list items are no part of TOML's names.
    for (size_t open; (open = path.find('[')) != std::string::npos;)
      path.erase(open, path.find(']') - open + 1);
    return path;
  }
  void begin_section(const std::string& title, const std::string& help) {
    sections_.emplace_back(title, title.empty() ? "" : title + help + ".\n\n");
    has_rows_.push_back(false);
  }
  void row(const char* name, const char* type, const std::string& value, const std::string& range,
           const char* help) {
    const size_t section = open_.empty() ? 0 : open_.back();
    std::string& text = sections_[section].second;
    if (!has_rows_[section]) text += "| key | type | default | range | meaning |\n|---|---|---|---|---|\n";
    has_rows_[section] = true;
    text += fmt::format("| `{}` | {} | `{}` | {} | {} |\n", name, type, value, range, help);
  }

  std::vector<std::pair<std::string, std::string>> sections_;
  std::vector<bool> has_rows_;
  std::vector<size_t> open_;
  std::string list_help_;
};

}  // namespace

namespace detail {

Json write_fields(const std::function<void(Fields&)>& visit) {
  WriteFields writer;
  visit(writer);
  return writer.take();
}

std::string document_fields(const std::function<void(Fields&)>& visit) {
  DocumentFields writer;
  visit(writer);
  return writer.take();
}

}  // namespace detail

}  // namespace fathom
