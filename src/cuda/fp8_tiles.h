// What the registration of fp8_tiles hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

enum class Fp8Format { kE4M3, kE5M2 };

/// Room for one form of the matrix; null: it is not wanted.
struct Fp8Room {
  uint8_t* values = nullptr;
  float* scales = nullptr;
  bool is_by_row = false;  ///< how scales lie (`TileScales`)
};

/// `x`: dense [rows, columns] in vectors of 8, both multiples of 16. `beyond`: null, or what is added to.
struct Fp8TilesArgs {
  const void* x;
  Fp8Room plain, turned;
  unsigned long long* beyond;
  int64_t rows;
  int64_t columns;
};

/// `type`: float or bfloat16.
cudaError_t launch_fp8_tiles(ElementType type, Fp8Format format, const Fp8TilesArgs& args,
                             cudaStream_t stream);

}  // namespace fathom::cuda
