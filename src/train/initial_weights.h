// Weights that a run takes over from finished models, by patterns of names.
#pragma once

#include <torch/nn/module.h>

#include <string>
#include <vector>

#include "base/config.h"
#include "base/json.h"

namespace fathom {

/// Parameters of the model in the folder `from` whose names fit `take`, under the names that `as` gives them:
/// what the * of `take` stands for takes the place of the * of `as` ("encoder.*" as "vision.*").
struct InitRule {
  std::string from;
  std::string take = "*";
  std::string as;  ///< empty: their own names

  void fields(Fields& f);
  /// Errors (kConfig): no folder, or not one * in both patterns where names change.
  void validate() const;
};

/// What became of every parameter of the model, and of every parameter that a rule takes.
struct InitReport {
  struct Loaded {
    std::string parameter;
    std::string from;  ///< "FOLDER: NAME"
  };
  struct Left {
    std::string name;  ///< a parameter that keeps its first value, or a "FOLDER: NAME" that has no place
    std::string reason;
  };
  std::vector<Loaded> loaded;
  std::vector<Left> left;

  /// {"loaded": [{"parameter", "from"}, …], "left": [{"name", "reason"}, …]}
  Json to_json() const;
  /// A few lines for people: counts, and what was left and why, grouped by reason.
  std::string to_text() const;
};

/// Copies what the rules give, in their order, into `module`'s parameters. `tokenizer_json`: the run's own,
/// or empty. Errors: kConfig for a rule that gives nothing (with the reasons), or an embedding of another
/// vocabulary; kCheckpoint for folders that cannot be read.
InitReport take_initial_weights(torch::nn::Module& module, const std::vector<InitRule>& rules,
                                const std::string& tokenizer_json = {});
/// The errors of `take_initial_weights` as far as names tell them, without reading weights.
void check_initial_names(const torch::nn::Module& module, const std::vector<InitRule>& rules);

}  // namespace fathom
