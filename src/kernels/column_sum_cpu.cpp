// LibTorch sums columns of 16 bits as a copy in float32, after writing it.
#include <ATen/Parallel.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>

#include "kernels/cpu_vector.h"

namespace fathom::kernels {
namespace {

/// Adds rows [rows, size] to `sum`, four at a time.
template <typename T>
FATHOM_CPU_CLONES void add_rows(const T* __restrict x, int64_t rows, int64_t size,
                                Compute<T>* __restrict sum) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4, x += 4 * size)
    for (int64_t i = 0; i < size; ++i)
      sum[i] += (load(x[i]) + load(x[size + i])) + (load(x[2 * size + i]) + load(x[3 * size + i]));
  for (; row < rows; ++row, x += size)
    for (int64_t i = 0; i < size; ++i) sum[i] += load(x[i]);
}

at::Tensor column_sum_cpu(const at::Tensor& x_in, std::optional<at::ScalarType> type) {
  const auto x = x_in.contiguous();
  const int64_t size = x.size(-1), rows = x.numel() / std::max<int64_t>(1, size);
  const RowChunks chunks(rows, size);
  auto partial = at::zeros({chunks.count, size}, x.options().dtype(compute_type(x.scalar_type())));
  dispatch_floating(x.scalar_type(), "column_sum", [&]<typename T>(T) {
    auto* sums = partial.mutable_data_ptr<Compute<T>>();
    at::parallel_for(0, chunks.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk)
        add_rows(x.const_data_ptr<T>() + chunk * chunks.rows * size,
                 std::min(chunks.rows, rows - chunk * chunks.rows), size, sums + chunk * size);
    });
  });
  return at::sum(partial, {0}).to(type.value_or(x.scalar_type()));
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("column_sum", column_sum_cpu);
}

}  // namespace fathom::kernels
