// The --data and --split options that eval, report, embed and search share.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/opened_model.h"
#include "cli/options.h"
#include "data/readers/dataset.h"

namespace fathom::cli {

struct DataOptions {
  std::string path;           ///< empty: the data that the model's run was evaluated on
  std::string split = "val";  ///< "all": every row
  bool split_given = false;   ///< otherwise the run's own, or `split` where the data names splits
  std::optional<int64_t> limit = std::nullopt;
  DatasetConfig named;  ///< what COCO and VQA files need beside
};

/// --images, --annotations and --image-name: what COCO and VQA files need beside a path.
void add_picture_options(CLI::App& app, DatasetConfig& config);
void add_data_options(CLI::App& app, DataOptions& options);

/// One path, or all texts that a language model's run was evaluated on. Errors (kUsage): no --data for a
/// model whose record names none.
std::vector<std::string> data_paths(const DataOptions& options, const OpenedModel& model);

/// How the data is to be read. Where it is what the model's run was evaluated on, all that the options leave
/// open is as it was then; the split, and the limit with it, unless `split` is "all". Errors: as of
/// `data_paths`; kCheckpoint for a record that makes no sense.
DatasetConfig data_config(const DataOptions& options, const OpenedModel& model);
std::unique_ptr<Dataset> open_data(const DataOptions& options, const OpenedModel& model);

}  // namespace fathom::cli
