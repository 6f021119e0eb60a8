// What tests of uninitialised memory begin with.
#pragma once

#include <ATen/ops/full.h>

#include <cmath>
#include <vector>

namespace fathom::testing {

/// Memory that is taken from now on without being set holds what is no number.
inline void spoil_memory(at::Device device) {
  std::vector<at::Tensor> spoilt;
  for (const int64_t count : {1 << 10, 1 << 16, 1 << 23})
    for (int64_t i = 0; i < 64; ++i)
      spoilt.push_back(at::full({count}, NAN, at::TensorOptions().dtype(at::kFloat).device(device)));
}

}  // namespace fathom::testing
