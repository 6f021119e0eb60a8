// The MODEL argument that eval, embed, search and generate share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/options.h"
#include "evaluate/model_inputs.h"
#include "evaluate/options.h"

namespace fathom::cli {

struct ModelOptions {
  std::string path;
  std::string device = "auto";
  std::vector<std::string> adapters;  ///< "FOLDER" or "FOLDER:WEIGHT", added to the weights
  std::string precision = "fp32";
  int64_t batch_size = 128;
  int64_t workers = 2;
  bool dense = false;   ///< gates let everything through
  int64_t rerank = -1;  ///< −1: as the model was trained to be evaluated
};

/// MODEL, --device and --precision; with `runs_data` also --batch-size and --workers.
void add_model_options(CLI::App& app, ModelOptions& options, bool runs_data);

/// A model in memory with all that is needed to feed it.
struct OpenedModel {
  std::string folder;  ///< RUN/model where a run was given
  LoadedModel loaded;
  std::shared_ptr<const Tokenizer> tokenizer;  ///< null without one
  ModelInputs inputs;
  EvaluateOptions evaluate;

  /// Errors (kCheckpoint): the folder holds another kind of model, which the message names beside what
  /// `purpose` needs.
  DualTower dual_tower(const char* purpose) const;
  LanguageModel language(const char* purpose) const;
  Fusion fusion(const char* purpose) const;
  Classifier classifier(const char* purpose) const;
  /// Errors (kCheckpoint): no tokenizer.json in the folder.
  std::shared_ptr<const Tokenizer> require_tokenizer() const;
};

/// Errors: kCheckpoint for what is no model (or a run that has not written one yet), kConfig for the device.
OpenedModel open_model(const ModelOptions& options);

}  // namespace fathom::cli
