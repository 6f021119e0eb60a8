// What operands in FP8 take of memory, for the estimate of a run.
#pragma once

#include <cstdint>

#include "kernels/fp8_linear.h"
#include "train/recipe.h"

namespace fathom {

struct Fp8Memory {
  int64_t weights = 0;  ///< numbers of weights that are held as they are and turned, a byte each
  /// Of a micro-batch, in bytes: what products keep of their inputs in FP8, less what they would keep in
  /// BF16.
  int64_t activation_bytes = 0;
};

/// Of blocks' products with so many samples at a time, as `multiplies_in_fp8` says by their sizes. `recipe`
/// is resolved. Scales, a number for each tile, are left out, and so is cross-attention.
Fp8Memory fp8_memory(const RecipeConfig& recipe, int64_t samples, const kernels::Fp8Products& products);

}  // namespace fathom
