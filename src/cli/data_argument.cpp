#include "cli/data_argument.h"

#include "base/error.h"

namespace fathom::cli {

void add_data_options(CLI::App& app, DataOptions& options) {
  app.add_option("--data", options.path,
                 "manifest, folder or text file (default: what the run was evaluated on)")
      ->type_name("PATH");
  app.add_option("--split", options.split, "rows of this split; all for every row")->capture_default_str();
  app.add_option("--limit", options.limit, "only the first so many rows (0: all)")
      ->check(CLI::NonNegativeNumber);
}

std::string data_path(const DataOptions& options, const OpenedModel& model) {
  if (!options.path.empty()) return options.path;
  if (const Json* data = model.loaded.extras.record.find("evaluation_data"); data && data->is_string())
    return data->as_string();
  fail(ErrorKind::kUsage, "{}: the model does not say what it was evaluated on; give --data PATH",
       model.folder);
}

std::unique_ptr<Dataset> open_data(const DataOptions& options, const OpenedModel& model) {
  return open_dataset({.path = data_path(options, model),
                       .split = options.split == "all" ? "" : options.split,
                       .limit = options.limit});
}

}  // namespace fathom::cli
