// The products of a decoder's layers in FP8, ours beside LibTorch's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "tensor/device_runtime.h"

namespace fathom::bench {

/// [rows, inner] · [inner, columns]. `pass`: "forward", "input_gradient" (both in BF16), or "weight_gradient"
/// (in float32, which sums over all tokens).
struct Fp8ProductShape {
  std::string layer, pass;
  int64_t rows, columns, inner;
};

/// Of all layers of a block: queries, keys and values; output; gates and values; down.
std::vector<Fp8ProductShape> fp8_product_shapes(int64_t tokens, int64_t dim);

/// Milliseconds and TFLOP/s of `fp8_product`, of our kernel with blocks on their own and in pairs, and of
/// LibTorch's; operands are random, and in FP8 already. What has no kernel has no figure.
void add_fp8_product(Json& line, const Fp8ProductShape& shape, DeviceRuntime& runtime);

}  // namespace fathom::bench
