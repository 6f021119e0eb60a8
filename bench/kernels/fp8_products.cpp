#include "kernels/fp8_products.h"

#include <ATen/ATen.h>

#include <functional>

#include "kernels/fp8_tiles.h"
#include "measure/roofline.h"

namespace fathom::bench {
namespace {

using kernels::BlocksThatShare;
using kernels::Fp8Matrix;
using kernels::TileScales;

/// 11/4 of the width, a multiple of 128 where it can be.
int64_t inner_width(int64_t dim) {
  return dim * 11 / 4 / 16 * 16;
}

struct Fp8Operands {
  Fp8Matrix left, right;
  at::Tensor result;

  Fp8Operands(const Fp8ProductShape& shape, at::Device device) {
    const auto options = at::TensorOptions().device(device);
    const auto narrow = options.dtype(at::kBFloat16);
    const auto random = [&](int64_t rows) {
      return at::randn({rows, shape.inner}, options.dtype(at::kFloat)).to(at::kBFloat16);
    };
    left = kernels::fp8_tiles(random(shape.rows), {.plain = TileScales::kByRow}).plain;
    right = kernels::fp8_tiles(random(shape.columns), {.plain = TileScales::kByTile}).plain;
    result = at::empty({shape.rows, shape.columns},
                       shape.pass == "weight_gradient" ? options.dtype(at::kFloat) : narrow);
  }
};

}  // namespace

std::vector<Fp8ProductShape> fp8_product_shapes(int64_t tokens, int64_t dim) {
  struct Layer {
    const char* name;
    int64_t in, out;
  };
  const int64_t inner = inner_width(dim);
  std::vector<Fp8ProductShape> shapes;
  for (const auto& [name, in, out] : {Layer{"qkv", dim, 3 * dim}, Layer{"output", dim, dim},
                                      Layer{"gate_up", dim, 2 * inner}, Layer{"down", inner, dim}}) {
    shapes.push_back({name, "forward", tokens, out, in});
    shapes.push_back({name, "input_gradient", tokens, in, out});
    shapes.push_back({name, "weight_gradient", out, in, tokens});
  }
  return shapes;
}

void add_fp8_product(Json& line, const Fp8ProductShape& shape, DeviceRuntime& runtime) {
  const Fp8Operands operands(shape, runtime.device());
  const double flops = 2.0 * static_cast<double>(shape.rows) * static_cast<double>(shape.columns) *
                       static_cast<double>(shape.inner);
  const auto add = [&](const std::string& name, const std::function<bool()>& multiply) {
    if (!multiply()) return;
    const double ms = best_ms(runtime, [&] { multiply(); });
    line[name + "ms"] = ms;
    line[name + "tflop_per_second"] = 1e-12 * flops / (1e-3 * ms);
  };
  const auto& [left, right, result] = operands;
  const auto ours = [&](BlocksThatShare sharing) {
    return kernels::fp8_gemm(left, right, {}, result, sharing);
  };
  line["layer"] = shape.layer;
  line["pass"] = shape.pass;
  line["rows"] = shape.rows;
  line["columns"] = shape.columns;
  line["inner"] = shape.inner;
  line["flops"] = flops;
  add("", [&] {
    kernels::fp8_product(left, right, {}, result);
    return true;
  });
  add("single_", [&] { return ours(BlocksThatShare::kOne); });
  add("pair_", [&] { return ours(BlocksThatShare::kTwo); });
  add("library_", [&] { return kernels::fp8_library_product(left, right, {}, result); });
}

}  // namespace fathom::bench
