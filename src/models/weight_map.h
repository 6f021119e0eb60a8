// Foreign checkpoints ↔ our parameters: one table for reading and writing.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tensor/tensor_file.h"

namespace fathom {

/// One parameter of ours and the foreign tensors that make it up, one behind the other along dimension 0.
/// With several sources `rows` says how many rows each gives; a single source has the parameter's shape.
struct WeightRule {
  struct Source {
    std::string name;
    int64_t rows = 0;
  };
  std::string parameter;
  std::vector<Source> sources;
};
using WeightMap = std::vector<WeightRule>;

/// Whether a foreign tensor may be passed over: buffers that follow from the configuration, heads we do not
/// keep.
using IgnoreRule = std::function<bool(const std::string& name)>;

/// Whether a parameter is a gate's (nn/token_gate.h).
bool belongs_to_gate(const std::string& parameter);
/// Whether a parameter is of a part that we add to a published architecture, and other programs know nothing
/// of.
bool is_addition(const std::string& parameter);

/// Our own names on both sides, adapters left out.
WeightMap identity_map(const torch::nn::Module& module);

/// The weights of a folder, or of one file: `model.safetensors`, or the shards that
/// `model.safetensors.index.json` lists. Memory-mapped; views stay valid as long as this lives.
class WeightFiles {
 public:
  /// Errors (kCheckpoint): neither file is there, a shard that is missing or leaves the folder, a tensor in
  /// two shards.
  static WeightFiles open(const std::string& path);

  const std::map<std::string, const TensorView*>& tensors() const { return tensors_; }
  int64_t num_elements() const;  ///< of all tensors
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, const TensorView*> tensors_;
};

/// Which parameters a map must give values to.
enum class Coverage { kAll, kMapped };

/// Copies weights into `module`'s parameters, converting their type. Errors (kCheckpoint): parameters whose
/// tensors are missing, tensors nobody asked for, shapes that differ; the first of them are named, and
/// nothing has been copied then.
void load_weights(torch::nn::Module& module, const WeightMap& map, const WeightFiles& files,
                  const IgnoreRule& ignore = {}, Coverage coverage = Coverage::kAll);

/// The foreign tensors of the parameters in `map`, on the CPU.
TensorMap foreign_weights(const torch::nn::Module& module, const WeightMap& map);

}  // namespace fathom
