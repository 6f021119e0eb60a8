// What layers in FP8 take.
#pragma once

#include "kernels/fp8_tiles.h"

namespace fathom::kernels {

/// Rows of a product's left factor. `states`: bfloat16 [..., D]; or, where `in_fp8` has them [R, D] already,
/// its plain values, which stand for them in autograd: their gradient is bfloat16 all the same.
struct Fp8Rows {
  at::Tensor states;
  Fp8Pair in_fp8 = {};
};

}  // namespace fathom::kernels
