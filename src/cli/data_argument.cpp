#include "cli/data_argument.h"

#include "base/error.h"

namespace fathom::cli {

void add_picture_options(CLI::App& app, DatasetConfig& config) {
  app.add_option("--images", config.images, "folder of the pictures that a COCO or VQA file names")
      ->type_name("DIR");
  app.add_option("--annotations", config.annotations, "the file with the answers to VQA's questions")
      ->type_name("FILE");
  app.add_option("--image-name", config.image_name, "names of VQA's pictures, one # for each digit")
      ->type_name("NAME");
}

void add_data_options(CLI::App& app, DataOptions& options) {
  app.add_option("--data", options.path,
                 "manifest, folder or text file (default: what the run was evaluated on)")
      ->type_name("PATH");
  app.add_option("--split", options.split,
                 "rows of this split, all for every row; not given, data that names no split is taken whole")
      ->each([&](const std::string&) { options.split_given = true; })
      ->capture_default_str();
  app.add_option("--limit", options.limit, "only the first so many rows (0: all)")->check(at_least(0));
  add_picture_options(app, options.named);
}

std::vector<std::string> data_paths(const DataOptions& options, const OpenedModel& model) {
  if (!options.path.empty()) return {options.path};
  const Json* data = model.loaded.extras.record.find("evaluation_data");
  if (data && data->is_string()) return {data->as_string()};
  if (data && data->is_array() && data->size() > 0) {
    std::vector<std::string> paths;
    for (const Json& path : data->as_array()) {
      if (!path.is_string())
        fail(ErrorKind::kCheckpoint, "{}/fathom.json: record.evaluation_data: expected strings, got {}",
             model.folder, path.kind_name());
      paths.push_back(path.as_string());
    }
    return paths;
  }
  fail(ErrorKind::kUsage, "{}: the model does not say what it was evaluated on; give --data PATH",
       model.folder);
}

std::unique_ptr<Dataset> open_data(const DataOptions& options, const OpenedModel& model) {
  DatasetConfig config = options.named;
  config.path = data_paths(options, model).front();
  config.split = options.split == "all" ? "" : options.split;
  config.limit = options.limit;
  config.split_if_named = !options.split_given;
  return open_dataset(config);
}

}  // namespace fathom::cli
