// Low-rank adapters on the linear layers of a model, whatever the model.
#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/config.h"
#include "nn/linear.h"

namespace fathom {

/// How a model with adapters is kept.
enum class AdapterSaving {
  kMerged,   ///< as a whole model, the adapters added to its weights
  kAdapter,  ///< as a folder with the adapters alone (models/adapter_folder.h)
};

struct LoraConfig {
  int64_t rank = 0;  ///< 0: none
  double alpha = 16.0;
  double dropout = 0.0;
  std::vector<std::string> patterns = {"*.attention.qkv", "*.attention.output"};
  std::vector<std::string> also_train;
  AdapterSaving save = AdapterSaving::kMerged;

  void fields(Fields& f);
  /// Errors (kConfig): no patterns; what an adapter folder has no place for.
  void validate() const;
  bool active() const { return rank > 0; }
};

/// The linear layers of a model by their names ("blocks.0.attention.qkv").
std::vector<std::pair<std::string, LinearImpl*>> linear_layers(torch::nn::Module& module);

/// The number of a layer's random stream: a function of its name, apart from those that layers use
/// themselves.
int64_t adapter_stream(const std::string& layer);

/// Gives every linear layer that a pattern fits an adapter named "default", whose values follow from `seed`
/// and the layer's name, and freezes all other parameters but those of `also_train`. Returns how many layers
/// there are. Errors (kConfig): a pattern that fits nothing, with the nearest name.
int64_t add_adapters(torch::nn::Module& module, const LoraConfig& config, int64_t seed);

bool has_adapters(torch::nn::Module& module);
/// Adds all adapters to the weights, each as its weight says, and drops them.
void merge_adapters(torch::nn::Module& module);
/// How much of the adapters called `name` is added, 0 for none. Errors (kConfig): there are none of that
/// name; the message lists those there are.
void weigh_adapters(torch::nn::Module& module, const std::string& name, double weight);

/// The model's weights with its adapters added, as long as this lives; then the very weights of before. For
/// saving: a forward pass meanwhile would add the adapters twice.
class MergedWeights {
 public:
  explicit MergedWeights(torch::nn::Module& module);
  ~MergedWeights();
  MergedWeights(const MergedWeights&) = delete;
  MergedWeights& operator=(const MergedWeights&) = delete;

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> kept_;  ///< the living weight, and its former values
};

}  // namespace fathom
