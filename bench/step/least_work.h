// The least that a model's pass or training step has to compute and to move, for a roofline: every product
// once, every fused operation reading its inputs and writing its outputs once, biases and casts for nothing.
// docs/performance.md has the same as a table.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "measure/roofline.h"
#include "models/language/config.h"
#include "models/swin/config.h"

namespace fathom::bench {

/// How a model is run: activations of `type`, forward alone or a training step.
struct WayToRun {
  at::ScalarType type = at::kFloat;
  bool trains = false;
};

/// A transformer over `batch` rows of `tokens`; `has_head`: with logits of every token and their loss.
LeastWork transformer_work(const LanguageModelConfig& config, int64_t batch, int64_t tokens, bool has_head,
                           WayToRun way);
LeastWork swin_work(const SwinConfig& config, int64_t images, WayToRun way);
/// Norm of the gradients and AdamW: float32 gradients, masters and moments, and the masters' copy in `type`.
LeastWork optimizer_work(int64_t parameters, at::ScalarType type);

}  // namespace fathom::bench
