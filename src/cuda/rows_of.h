// What kernels of counted rows must know of tensors. For files that see LibTorch.
#pragma once

#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "cuda/counted_rows.h"
#include "cuda/element_type_of.h"

namespace fathom::cuda {

inline cudaStream_t stream() {
  return c10::cuda::getCurrentCUDAStream();
}

/// Where the number of rows is read.
inline const int32_t* count_of(const at::Tensor& start) {
  return start.const_data_ptr<int32_t>() + start.numel() - 1;
}

/// Of as many rows as there is room for, where the host expects none in particular.
inline int64_t expected_of(int64_t expected, int64_t rows) {
  return expected > 0 ? std::min(expected, rows) : rows;
}

inline RowsArgs rows_of(const at::Tensor& place, const at::Tensor& start) {
  FATHOM_CHECK(place.scalar_type() == at::kInt && start.scalar_type() == at::kInt && place.is_contiguous() &&
                   start.is_contiguous() && start.numel() > 1 && place.numel() % (start.numel() - 1) == 0,
               "[counted_rows] expected dense int32 places and starts of rows");
  const int64_t sequences = start.numel() - 1;
  return {place.const_data_ptr<int32_t>(), start.const_data_ptr<int32_t>(), sequences,
          place.numel() / sequences};
}

/// Of vectors of 16 bytes alone.
inline ElementType check_dense(const at::Tensor& x, const char* op) {
  const ElementType type = element_type_of(x, op);
  FATHOM_CHECK((type == ElementType::kHalf || type == ElementType::kBFloat16) && x.is_contiguous() &&
                   x.size(-1) % 8 == 0 && are_aligned16({x.const_data_ptr()}),
               "[{}] expected dense rows of 16-bit elements in vectors of 8", op);
  return type;
}

}  // namespace fathom::cuda
