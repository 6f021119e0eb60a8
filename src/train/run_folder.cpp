#include "train/run_folder.h"

#include <filesystem>

#include "train/checkpoint.h"

namespace fathom {

std::string RunFolder::model_at(int64_t step) const {
  return checkpoint_path(models(), step);
}

bool RunFolder::has_run() const {
  return std::filesystem::exists(path + "/log.jsonl") || has_state();
}

bool RunFolder::has_state() const {
  return !checkpoint_steps(checkpoints()).empty();
}

void RunFolder::prune_models(int64_t keep) const {
  prune_checkpoints(models(), keep);
}

}  // namespace fathom
