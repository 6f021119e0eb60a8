// The training state on disk: all that is needed to go on as if nothing had happened.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "tensor/tensor_file.h"

namespace fathom {

/// Named groups of tensors ("model", "average", "optimizer", "task"), and the plain rest (step, place in the
/// data, seeds, clocks, best result, recipe).
struct TrainingState {
  int64_t step = 0;
  std::map<std::string, TensorMap> tensors;
  Json values = Json::object();
};

/// Writes FOLDER/step-N (N in eight digits): one safetensors file a group, state.json, and manifest.json,
/// which has a checksum of every file and names every slice of every tensor. All of it is written beside,
/// synced and put in place in one step, also over an older state of the same step. Errors: full disk (kData),
/// no permission (kCheckpoint); former states stay.
void save_checkpoint(const std::string& folder, const TrainingState& state);

/// Steps of the states in `folder`, rising. What a crash left half written is not among them.
std::vector<int64_t> checkpoint_steps(const std::string& folder);
std::string checkpoint_path(const std::string& folder, int64_t step);

/// Errors (kCheckpoint): a file that is missing or does not match its checksum, a manifest we cannot read.
TrainingState load_checkpoint(const std::string& path);

/// The newest state that can be read (with a warning for newer ones that cannot), or nothing when there is
/// none. Errors (kCheckpoint): there are states, none of which can be read.
std::optional<TrainingState> load_latest_checkpoint(const std::string& folder);

/// Removes all but the newest `keep` states, and what crashes left behind. 0 keeps all.
void prune_checkpoints(const std::string& folder, int64_t keep);

}  // namespace fathom
