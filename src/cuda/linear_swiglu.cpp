// fathom::linear_swiglu and its like of counted rows on a GPU: what is multiplied in wide tiles gets SwiGLU
// on its way out, the rest in a pass of its own; so does what is kept, which took longer when one product
// wrote both.
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/empty.h>
#include <ATen/record_function.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <tuple>

#include "cuda/counted_product.h"
#include "cuda/registration.h"
#include "cuda/rows_of.h"
#include "cuda/wide_product.h"

namespace fathom::cuda {
namespace {

/// Undefined where other kernels are through first, or there is none for such operands. `count`, or null: of
/// the rows that are taken, of which `expected` are expected.
at::Tensor in_wide_tiles(const at::Tensor& x, const at::Tensor& weight, const int32_t* count,
                         int64_t expected) {
  const int64_t rows = x.size(0), depth = x.size(1), columns = weight.size(0) / 2;
  const ElementType type = element_type_of(x, "linear_swiglu");
  if (rows == 0 || at::cuda::getCurrentDeviceProperties()->major != 9 || !x.is_contiguous() ||
      !weight.is_contiguous() || weight.scalar_type() != x.scalar_type() || weight.device() != x.device() ||
      !counted_product_fits(type, rows, depth, columns) ||
      !are_aligned16({x.const_data_ptr(), weight.const_data_ptr()}))
    return {};
  const int tile_columns = wide_swiglu_columns(expected, depth, columns);
  if (tile_columns == 0) return {};
  auto y = at::empty({rows, columns}, x.options());
  const WideProductArgs args = {.a = x.const_data_ptr(),
                                .weight = weight.const_data_ptr(),
                                .y = y.mutable_data_ptr(),
                                .count = count,
                                .rows = rows,
                                .depth = depth,
                                .columns = columns};
  C10_CUDA_CHECK(launch_wide_swiglu(type, args, tile_columns, stream()));
  return y;
}

template <typename Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

at::Tensor linear_swiglu(const at::Tensor& x, const at::Tensor& weight) {
  static const auto linear =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&)>(
          "aten::linear");
  static const auto swiglu = find_op<at::Tensor(const at::Tensor&)>("fathom::swiglu");
  const c10::cuda::CUDAGuard guard(x.device());
  const auto y = in_wide_tiles(x, weight, nullptr, x.size(0));
  if (y.defined()) return y;
  const at::DisableRecordFunctionGuard counted_already;
  return swiglu.call(linear.call(x, weight, std::nullopt));
}

std::tuple<at::Tensor, at::Tensor> counted_linear_swiglu(const at::Tensor& x, const at::Tensor& weight,
                                                         const at::Tensor& start, int64_t expected,
                                                         bool keep) {
  static const auto linear =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t)>(
          "fathom::counted_linear");
  static const auto swiglu =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::counted_swiglu");
  const c10::cuda::CUDAGuard guard(x.device());
  if (!keep) {
    const auto y = in_wide_tiles(x, weight, count_of(start), expected_of(expected, x.size(0)));
    if (y.defined()) return {y, at::empty({0}, x.options())};
  }
  const at::DisableRecordFunctionGuard counted_already;
  const auto gate_up = linear.call(x, weight, start, expected);
  return {swiglu.call(gate_up, start), keep ? gate_up : at::empty({0}, x.options())};
}

}  // namespace

void register_linear_swiglu(torch::Library& library) {
  library.impl("linear_swiglu", linear_swiglu);
  library.impl("counted_linear_swiglu", counted_linear_swiglu);
}

}  // namespace fathom::cuda
