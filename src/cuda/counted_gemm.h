// The tensor-core products behind counted_product.h, one set an element type; each is compiled in its own
// file.
#pragma once

#include "cuda/counted_product.h"

namespace fathom::cuda {

constexpr int kSquareColumns = 128, kWideColumns = 192;  ///< of tiles of 128 rows

/// How the gradient of a weight is divided: tiles of kSquareColumns or kWideColumns, of its transpose where
/// that takes fewer of them, and parts of the reduction.
struct WeightGradTiles {
  int columns = kSquareColumns;
  bool turned = false;
  int splits = 1;
};

/// `T`: __half or __nv_bfloat16. Sizes have been checked.
template <typename T>
struct CountedGemm {
  static cudaError_t product(const CountedProductArgs& args, cudaStream_t stream);
  static cudaError_t input_grad(const CountedInputGradArgs& args, cudaStream_t stream);
  /// With more than one split, float32 sums [splits, out_dim, in_dim] are left in the workspace.
  static cudaError_t weight_grad(const CountedWeightGradArgs& args, const WeightGradTiles& tiles,
                                 cudaStream_t stream);
};

}  // namespace fathom::cuda
