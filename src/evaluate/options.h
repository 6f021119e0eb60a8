// How a model is run over a data set without training it.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "nn/forward_context.h"

namespace fathom {

struct EvaluateOptions {
  c10::Device device = c10::kCPU;
  /// Type of activations and matrix products; without one, that of the parameters.
  std::optional<c10::ScalarType> compute_dtype = std::nullopt;
  /// Weights in `compute_dtype` that last from batch to batch; null: every pass casts them.
  std::shared_ptr<kernels::WeightCopies> copies = {};
  bool settled = false;      ///< as `ForwardContext::settled`
  int64_t batch_size = 128;  ///< changes time and memory, no figure
  int64_t workers = 2;
  int64_t rerank = 0;  ///< retrieval: candidates at a ranking's head that region scores order anew; 0: none
  bool show_progress = false;

  /// Of every pass. `trace`, where it is not null, gets what gates decide.
  ForwardContext context(GateTrace* trace = nullptr) const {
    return {.compute_dtype = compute_dtype, .copies = copies.get(), .settled = settled, .gate_trace = trace};
  }
};

}  // namespace fathom
