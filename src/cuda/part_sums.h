// Sums of what blocks have made of each column: small work at the end of many backward passes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

struct PartSumArgs {
  const float* parts;  ///< [count, columns]
  void* sum;           ///< [columns]
  int64_t count;
  int64_t columns;
};

/// In a fixed order. `type`: of the sum.
cudaError_t launch_part_sum(ElementType type, const PartSumArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
