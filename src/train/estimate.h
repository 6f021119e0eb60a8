// What a run would cost, without running it.
#pragma once

#include <cstdint>

#include "base/json.h"
#include "tensor/device_runtime.h"
#include "train/recipe.h"

namespace fathom {

struct Estimate {
  int64_t parameters = 0;
  double step_flops = 0;  ///< forward and backward, over all ranks
  int64_t steps = 0;
  int64_t state_bytes = 0;  ///< on each rank: weights and what is made of them, gradients, moments, average
  int64_t activation_bytes = 0;  ///< on each rank, roughly: what a micro-batch keeps for its backward pass
  int64_t device_bytes = 0;      ///< what there is; 0 when unknown
  double seconds = 0;            ///< of all steps, at 40 % of what products reach on the device
  Json to_json() const;
};

/// `recipe` is resolved and has its vocabulary. Activations: Korthikanti et al., "Reducing activation
/// recomputation in large transformer models", 2022, equation 1, without attention maps. Calibrates by a
/// small product.
Estimate estimate_run(const RecipeConfig& recipe, int64_t batches_per_epoch, int64_t num_ranks,
                      DeviceRuntime& runtime);

}  // namespace fathom
