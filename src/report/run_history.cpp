#include "report/run_history.h"

#include <fmt/format.h>

#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "data/readers/json_line.h"

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

Json read_line(const Line& line, const std::string& path) {
  const auto refuse = [&](const std::string& reason) {
    fail(ErrorKind::kData, "{}:{}: {}", path, line.number, reason);
  };
  Json json;
  try {
    json = parse_json_line(line);
  } catch (const Error& error) {
    refuse(error.what());
  }
  const Json* step = json.find("step");
  if (step == nullptr || !step->is_number()) refuse("expected an object with a number as its \"step\"");
  return json;
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
    const Json line = read_line({.text = text, .number = number, .ended = true}, path);
    const double step = line.at("step").as_double();
    if (const Json* evaluation = line.find("evaluation"); evaluation != nullptr && evaluation->is_object())
      add_numbers(history.evaluation, *evaluation, step, "");
    else
      add_numbers(history.training, line, step, "");
  }
  return history;
}

}  // namespace fathom
