// A recipe made real: data, tokenizer, model and task, ready for the trainer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batch/loader.h"
#include "distributed/collective.h"
#include "tensor/device_runtime.h"
#include "train/recipe.h"
#include "train/task.h"

namespace fathom {

/// Where a session runs. `run_folder` empty: nothing is written.
struct SessionPlace {
  Collective& collective;
  DeviceRuntime& runtime;
  std::string run_folder;
  bool goes_on = false;  ///< from a training state in the run folder, with the tokenizer kept there
  /// Nothing will be trained: the task's model has its parameters' names, but the least widths and no weights
  /// (models/narrowed.h). What a run would refuse for its names is refused.
  bool names_only = false;
};

/// A data set of a mixture, as an epoch has it. Samples are what is drawn: of questions that share pictures,
/// a picture with some.
struct MixShare {
  std::string data;  ///< its path
  double weight = 1.0;
  int64_t samples = 0;        ///< that it has
  int64_t epoch_samples = 0;  ///< that an epoch of the mixture draws from it
  Json to_json() const;
};

/// What a run needs; the loader and the task must not outlive it.
struct Session {
  RecipeConfig recipe;  ///< resolved, vocabulary included
  std::unique_ptr<Task> task;
  std::unique_ptr<Loader> loader;
  std::vector<MixShare> mix;     ///< of the data sets that are mixed; empty where there is one alone
  Json record = Json::object();  ///< "inputs" and "evaluation_data", as `fathom eval` looks for them

  TrainerConfig trainer_config(const std::string& run_folder) const;
};

/// Reads the data, trains or loads the tokenizer, makes the model on the device. Rank 0 trains the tokenizer
/// and keeps it in the run folder, where the others (and a run that goes on) find it. Errors: kConfig (also a
/// metric that no evaluation will have), kData, kCheckpoint.
Session open_session(const RecipeConfig& recipe, const SessionPlace& place);

/// The tokenizer of a recipe. Errors as above.
std::shared_ptr<const Tokenizer> make_tokenizer(const RecipeConfig& recipe, const SessionPlace& place);

}  // namespace fathom
