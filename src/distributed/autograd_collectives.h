// Collectives through which gradients flow.
#pragma once

#include <ATen/core/Tensor.h>

#include "distributed/collective.h"

namespace fathom {

/// Concatenates every rank's `x` [n, …] along dimension 0 into [size·n, …]. Backward sums what all ranks'
/// losses ask of a rank's rows and gives it to their owner (reduce-scatter), so the gradient is that of the
/// sum of all ranks' losses. The collective must outlive the backward pass; every rank must run it.
at::Tensor all_gather_with_gradient(Collective& collective, const at::Tensor& x);

}  // namespace fathom
