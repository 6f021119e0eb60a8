#include "data/readers/json_lists.h"

#include <utility>
#include <vector>

#include "base/error.h"

namespace fathom {
namespace {

/// Keeps one item at a time as a tree.
class ListEvents : public JsonEvents {
 public:
  ListEvents(const std::string& source, const JsonItemReaders& readers)
      : source_(source), readers_(readers) {}

  void value(Json value) override {
    if (depth_ == 0) refuse_top(value.kind_name());
    if (!open_.empty()) return attach(std::move(value));
    if (reader_ != nullptr && depth_ == 2) return item(value);
    if (depth_ != 1) return;
    if (readers_.contains(key_)) refuse_list(value.kind_name());
    rest_[key_] = std::move(value);
  }
  void key(std::string name) override {
    if (!open_.empty())
      open_.back().key = std::move(name);
    else if (depth_ == 1)
      key_ = std::move(name);
  }
  void open_object() override { open(Json::object()); }
  void open_array() override { open(Json::array()); }
  void close() override {
    --depth_;
    if (depth_ == 1 && open_.empty()) reader_ = nullptr;
    if (open_.empty()) return;
    Json done = std::move(open_.back().value);
    open_.pop_back();
    if (open_.empty())
      item(done);
    else
      attach(std::move(done));
  }

  Json take_rest() { return std::move(rest_); }

 private:
  struct Open {
    Json value;
    std::string key;
  };

  void open(Json container) {
    if (depth_ == 0 && !container.is_object()) refuse_top(container.kind_name());
    if (depth_ == 1) {
      const auto reader = readers_.find(key_);
      if (reader != readers_.end()) {
        if (!container.is_array()) refuse_list(container.kind_name());
        reader_ = &reader->second;
        index_ = 0;
      }
    } else if (!open_.empty() || (reader_ != nullptr && depth_ == 2)) {
      open_.push_back({std::move(container), ""});
    }
    ++depth_;
  }
  void attach(Json value) {
    if (open_.back().value.is_array())
      open_.back().value.push_back(std::move(value));
    else
      open_.back().value.as_object().emplace_back(std::exchange(open_.back().key, ""), std::move(value));
  }
  void item(const Json& value) { (*reader_)(index_++, value); }
  [[noreturn]] void refuse_top(const char* kind) const {
    fail(ErrorKind::kData, "{}: expected an object, got {}", source_, kind);
  }
  [[noreturn]] void refuse_list(const char* kind) const {
    fail(ErrorKind::kData, "{}: \"{}\": expected a list, got {}", source_, key_, kind);
  }

  const std::string& source_;
  const JsonItemReaders& readers_;
  Json rest_ = Json::object();
  std::string key_;  ///< of the outermost object
  int64_t depth_ = 0;
  const std::function<void(int64_t, const Json&)>* reader_ = nullptr;
  int64_t index_ = 0;
  std::vector<Open> open_;  ///< the item being built
};

}  // namespace

Json read_json_lists(std::string_view text, const std::string& source, const JsonItemReaders& readers) {
  ListEvents events(source, readers);
  walk_json(text, source, events);
  return events.take_rest();
}

}  // namespace fathom
