// The residual stream, and dropout and stochastic depth on its branches, keyed by sample.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <optional>

#include "kernels/residual_layer_norm.h"
#include "kernels/residual_rms_norm.h"
#include "nn/forward_context.h"
#include "nn/norm.h"

namespace fathom {

/// How much of a branch is dropped, and the number that tells this place in the model from all others.
struct BranchDrop {
  double dropout = 0.0;    ///< share of elements
  double drop_path = 0.0;  ///< share of samples whose branch is left out. Source: Huang et al., "Deep
                           ///< networks with stochastic depth", ECCV 2016
  int64_t stream = 0;
};

/// Keyed dropout where the context asks for it, else `x`. `x`: [B, ...].
at::Tensor dropout(const at::Tensor& x, double probability, int64_t stream, const ForwardContext& context);

/// x + branch, with the branch dropped as `drop` says when the context trains. Both [B, ...].
at::Tensor add_branch(const at::Tensor& x, const at::Tensor& branch, const BranchDrop& drop,
                      const ForwardContext& context);

/// The stream between two layers: the last branch is not added yet, so that its sum and the norm behind it
/// may be one pass.
struct Residual {
  at::Tensor x;
  at::Tensor branch = {};   ///< undefined: `x` is the sum
  at::Tensor scale_B = {};  ///< what each sample's branch is multiplied with; undefined: 1
  bool is_spare = false;    ///< nobody else reads `x`: who takes the stream may write over it

  at::Tensor sum() const;
  /// The branch, if a norm may add it in its own pass.
  std::optional<kernels::Branch> open() const;
};

/// `add_branch`, later.
Residual with_branch(const at::Tensor& x, const at::Tensor& branch, const BranchDrop& drop,
                     const ForwardContext& context);

/// The stream's sum, and its norm. With `products` that feeds those alone (kernels/residual_rms_norm.h).
kernels::NormedSum normed_sum(const Residual& stream, const RMSNorm& norm,
                              const kernels::Products& products = {});
kernels::NormedSum normed_sum(const Residual& stream, const LayerNorm& norm);

/// What stochastic depth multiplies each sample's branch with: [B], or undefined where it drops none.
at::Tensor branch_scale(const at::TensorOptions& options, const BranchDrop& drop,
                        const ForwardContext& context);

/// Stochastic depth of one of `count` blocks: grows linearly from 0 to `last`.
double drop_path_at(int64_t block, int64_t count, double last);

}  // namespace fathom
