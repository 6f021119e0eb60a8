#include "train/task/module_parameters.h"

namespace fathom {

NamedParameters module_parameters(const torch::nn::Module& module) {
  NamedParameters parameters;
  for (const auto& entry : module.named_parameters()) parameters.emplace_back(entry.key(), entry.value());
  return parameters;
}

}  // namespace fathom
