#include "cli/data_argument.h"

#include "base/error.h"
#include "base/file.h"

namespace fathom::cli {
namespace {

/// What the model's run was evaluated on, where its record says how that is read.
std::optional<DatasetConfig> recorded_data(const OpenedModel& model) {
  const Json* data = model.loaded.extras.record.find("evaluation_data");
  if (!data || !data->is_object()) return std::nullopt;
  return with_error_kind(ErrorKind::kCheckpoint, [&] {
    return read_config<DatasetConfig>({.values = *data, .source = model.folder + "/fathom.json"});
  });
}

}  // namespace

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
  app.add_option(
         "--split", options.split,
         "rows of this split, all for every row; not given, as the run was evaluated, and data that names "
         "no split is taken whole")
      ->each([&](const std::string&) { options.split_given = true; })
      ->capture_default_str();
  app.add_option("--limit", options.limit, "only the first so many rows (0: all)")->check(at_least(0));
  add_picture_options(app, options.named);
}

std::vector<std::string> data_paths(const DataOptions& options, const OpenedModel& model) {
  if (!options.path.empty()) return {options.path};
  if (const auto recorded = recorded_data(model); recorded && !recorded->path.empty())
    return {recorded->path};
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

DatasetConfig data_config(const DataOptions& options, const OpenedModel& model) {
  const std::string path = data_paths(options, model).front();
  const std::optional<DatasetConfig> recorded = recorded_data(model);
  const bool is_recorded = recorded && absolute_path(recorded->path) == absolute_path(path);
  DatasetConfig config = is_recorded ? *recorded : DatasetConfig{};
  config.path = path;
  for (const auto member : {&DatasetConfig::images, &DatasetConfig::annotations, &DatasetConfig::image_name})
    if (!(options.named.*member).empty()) config.*member = options.named.*member;
  if (!is_recorded || options.split_given || options.split == "all") {
    config.split = options.split == "all" ? "" : options.split;
    config.split_if_named = !options.split_given;
    config.limit = 0;
  }
  if (options.limit) config.limit = *options.limit;
  return config;
}

std::unique_ptr<Dataset> open_data(const DataOptions& options, const OpenedModel& model) {
  return open_dataset(data_config(options, model));
}

}  // namespace fathom::cli
