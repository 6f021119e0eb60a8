// LibTorch calls its addition of tensors for each row. Here each thread adds its columns of all rows, one
// after the other, so that threads have equal work whatever the ids are, and sums do not depend on their
// number.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cpu_vector.h"
#include "kernels/embedding.h"

namespace fathom::kernels {
namespace {

/// Columns that are not divided among threads: a line of the cache in float32.
constexpr int64_t kColumns = 16;

template <typename T>
FATHOM_CPU_CLONES void add_piece(const T* __restrict x, Compute<T>* __restrict sum, int64_t size) {
  for (int64_t i = 0; i < size; ++i) sum[i] += load(x[i]);
}

void add_cpu(const at::Tensor& sum_VD, const at::Tensor& ids_in, const at::Tensor& rows_in) {
  const at::ScalarType type = rows_in.scalar_type();
  const bool fits = compute_type(type) == sum_VD.scalar_type();
  const at::Tensor ids_N = ids_in.contiguous(),
                   rows_ND = (fits ? rows_in : rows_in.to(sum_VD.scalar_type())).contiguous();
  const int64_t count = rows_ND.size(0), width = rows_ND.size(1), vocabulary = sum_VD.size(0);
  const auto* ids = ids_N.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < count; ++n)
    FATHOM_CHECK(ids[n] >= 0 && ids[n] < vocabulary, "[embedding] expected ids below {}, got {}", vocabulary,
                 ids[n]);
  dispatch_floating(rows_ND.scalar_type(), "embedding", [&]<typename T>(T) {
    auto* sum = sum_VD.mutable_data_ptr<Compute<T>>();
    const T* rows = rows_ND.const_data_ptr<T>();
    at::parallel_for(0, (width + kColumns - 1) / kColumns, row_grain(count * kColumns),
                     [&](int64_t begin, int64_t end) {
                       const int64_t first = begin * kColumns, size = std::min(width, end * kColumns) - first;
                       for (int64_t n = 0; n < count; ++n)
                         add_piece(rows + n * width + first, sum + ids[n] * width + first, size);
                     });
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("add_embedding_rows_", add_cpu);
}

}  // namespace fathom::kernels
