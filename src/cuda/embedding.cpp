// Rows of a table and their gradient on a GPU: checks, memory and registration. What the kernels do not take
// goes to LibTorch's.
#include "cuda/embedding.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/embedding_dense_backward.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>
#include <vector>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max();

at::Tensor embedding_rows(const at::Tensor& weight_in, const at::Tensor& ids_in, at::ScalarType type) {
  const c10::cuda::CUDAGuard guard(weight_in.device());
  const at::ScalarType from = weight_in.scalar_type();
  if (from == at::kDouble || (from != type && (from != at::kFloat || type == at::kDouble)))
    return at::embedding(weight_in, ids_in).to(type);
  const at::Tensor weight = weight_in.contiguous(), ids = ids_in.contiguous();
  std::vector<int64_t> shape = ids.sizes().vec();
  shape.push_back(weight.size(1));
  const at::Tensor rows = at::empty(shape, weight.options().dtype(type).requires_grad(false));
  if (rows.numel() == 0) return rows;
  const EmbeddingRowsArgs args = {.weight = weight.const_data_ptr(),
                                  .ids = ids.const_data_ptr<int64_t>(),
                                  .rows = rows.mutable_data_ptr(),
                                  .count = ids.numel(),
                                  .vocabulary = weight.size(0),
                                  .dim = weight.size(1)};
  C10_CUDA_CHECK(launch_embedding_rows(element_type_of(weight, "embedding"),
                                       element_type_of(rows, "embedding"), args,
                                       c10::cuda::getCurrentCUDAStream()));
  return rows;
}

/// [N], by their ids.
at::Tensor sorted_places(const at::Tensor& ids, int64_t vocabulary) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor places = at::empty({2, ids.size(0)}, ids.options());
  auto* unsorted = reinterpret_cast<uint64_t*>(places.mutable_data_ptr<int64_t>());
  const RowOrder order = {.ids = ids.const_data_ptr<int64_t>(),
                          .unsorted = unsorted,
                          .sorted = unsorted + ids.size(0),
                          .count = ids.size(0),
                          .vocabulary = vocabulary};
  size_t bytes = 0;
  C10_CUDA_CHECK(row_order_bytes(order, bytes));
  const at::Tensor memory = at::empty({static_cast<int64_t>(bytes)}, ids.options().dtype(at::kByte));
  C10_CUDA_CHECK(launch_row_order(order, memory.mutable_data_ptr(), bytes, stream));
  return places.select(0, 1);
}

void add_embedding_rows(const at::Tensor& sum, const at::Tensor& ids_in, const at::Tensor& rows_in) {
  const c10::cuda::CUDAGuard guard(sum.device());
  FATHOM_CHECK(ids_in.device() == sum.device() && rows_in.device() == sum.device(),
               "[embedding] expected ids and rows on {}", sum.device().str());
  const int64_t vocabulary = sum.size(0), dim = sum.size(1), count = rows_in.size(0);
  if (sum.scalar_type() != at::kFloat || rows_in.scalar_type() == at::kDouble || count > kMostRows ||
      vocabulary >= kMostRows) {
    sum.add_(at::embedding_dense_backward(rows_in.to(sum.scalar_type()), ids_in, vocabulary, -1, false));
    return;
  }
  const at::Tensor ids = ids_in.contiguous(), rows = rows_in.contiguous();
  const at::Tensor sorted = sorted_places(ids, vocabulary);
  const at::Tensor parts = at::empty({row_sum_chunks(count), 2, dim}, sum.options());
  const RowSumArgs args = {.sorted = reinterpret_cast<const uint64_t*>(sorted.const_data_ptr<int64_t>()),
                           .rows = rows.const_data_ptr(),
                           .sum = sum.mutable_data_ptr<float>(),
                           .parts = parts.mutable_data_ptr<float>(),
                           .count = count,
                           .vocabulary = vocabulary,
                           .dim = dim};
  C10_CUDA_CHECK(
      launch_row_sums(element_type_of(rows, "embedding"), args, c10::cuda::getCurrentCUDAStream()));
}

}  // namespace

void register_embedding(torch::Library& library) {
  library.impl("embedding_rows", embedding_rows);
  library.impl("add_embedding_rows_", add_embedding_rows);
}

}  // namespace fathom::cuda
