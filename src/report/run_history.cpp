#include "report/run_history.h"

#include <fmt/format.h>

#include <string_view>

#include "base/file.h"
#include "base/json.h"

namespace fathom {
namespace {

using Curves = std::map<std::string, std::vector<PlotPoint>>;

void add_numbers(Curves& curves, const Json& line, double step, const std::string& prefix) {
  for (const auto& [key, value] : line.as_object()) {
    if (key == "step") continue;
    if (value.is_number()) curves[prefix + key].push_back({step, value.as_double()});
    if (value.is_object() && key != "evaluation") add_numbers(curves, value, step, prefix + key + "_");
  }
}

}  // namespace

RunHistory RunHistory::read(const std::string& path) {
  const std::string content = read_file(path);
  RunHistory history;
  std::string_view rest = content;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;  // torn by a crash
    const std::string_view text = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    if (text.empty()) continue;
    const Json line = parse_json(text, fmt::format("{}:{}", path, number));
    const double step = line.at("step").as_double();
    if (const Json* evaluation = line.find("evaluation"))
      add_numbers(history.evaluation, *evaluation, step, "");
    else
      add_numbers(history.training, line, step, "");
  }
  return history;
}

}  // namespace fathom
