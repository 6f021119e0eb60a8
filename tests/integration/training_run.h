// A tiny run on the scenes world, trained by the program itself.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "temporary_folder.h"

namespace fathom {

/// Scenes, and a recipe for them that uses all that draws random numbers: crops, jitter, masking, dropout,
/// stochastic depth, several captions; with averaged weights and evaluations.
class TrainingWorld {
 public:
  TrainingWorld();
  std::string operator/(const std::string& name) const { return folder_ / name; }
  /// Words after `fathom`: train on this world into RUN, with further settings.
  std::vector<std::string> arguments(const std::string& run,
                                     const std::vector<std::string>& settings = {}) const;

 private:
  TemporaryFolder folder_;
};

/// What a log says of training and evaluation, without clocks and speeds.
std::vector<Json> timeless_log(const std::string& run);
/// Of that, the losses.
std::vector<double> logged_losses(const std::string& run);

/// The program's `words` on two ranks.
std::vector<std::string> on_two_ranks(std::vector<std::string> words);

/// Path of the newest training state of a run.
std::string newest_state(const std::string& run);

/// Step of the newest training state, or -1.
int64_t newest_step(const std::string& run);

/// The files of a training state that must not depend on the machine's mood: all tensors.
std::vector<std::string> state_files();

}  // namespace fathom
