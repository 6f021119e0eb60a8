// What a sum over rows is divided by.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/div.h>

namespace fathom {

/// A number of rows over all ranks: known to the host, or counted on the device (at least 1) where samples
/// may lack a modality.
struct RowCount {
  double known = 1;
  at::Tensor counted = {};  ///< int64 scalar

  at::Tensor divide(const at::Tensor& sum) const {
    return counted.defined() ? at::div(sum, counted.to(sum.scalar_type())) : sum / known;
  }
};

}  // namespace fathom
