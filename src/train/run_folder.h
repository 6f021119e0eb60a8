// Where a run keeps what.
#pragma once

#include <cstdint>
#include <string>

namespace fathom {

/// Paths under RUN.
struct RunFolder {
  std::string path;

  std::string recipe() const { return path + "/recipe.toml"; }
  std::string tokenizer() const { return path + "/tokenizer.json"; }
  std::string checkpoints() const { return path + "/checkpoints"; }
  std::string models() const { return path + "/models"; }
  std::string model_at(int64_t step) const;
  std::string model() const { return path + "/model"; }

  /// Whether training has begun here.
  bool has_run() const;
  /// Whether there is a training state to go on from.
  bool has_state() const;
  /// Removes all but the newest `keep` models; 0 keeps all.
  void prune_models(int64_t keep) const;
};

}  // namespace fathom
