// The dotted path of the group that a visitor stands in; shared by the visitors of config_*.cpp.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "base/config.h"

namespace fathom {

/// Keeps the dotted path of the group that is being visited.
class PathFields : public Fields {
 protected:
  void enter_group(const char* name, const char*) override { path_.push_back(join(name)); }
  void leave_group() override { path_.pop_back(); }
  void enter_item(const char* name, size_t index) override {
    path_.push_back(fmt::format("{}[{}]", join(name), index));
  }
  void leave_item() override { path_.pop_back(); }
  std::string join(const std::string& name) const {
    return path_.empty() || path_.back().empty() ? name : path_.back() + "." + name;
  }

 private:
  std::vector<std::string> path_;
};

/// `"a", "b"` for messages.
std::string quoted_list(const std::vector<std::string>& names);

}  // namespace fathom
