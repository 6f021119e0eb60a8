#include <ATen/ops/embedding.h>
#include <ATen/ops/embedding_dense_backward.h>

#include "kernels/embedding.h"

namespace fathom::kernels::embedding_ref {

at::Tensor rows(const at::Tensor& weight_VD, const at::Tensor& ids, at::ScalarType type) {
  return at::embedding(weight_VD, ids).to(type);
}

void add(const at::Tensor& sum_VD, const at::Tensor& ids_N, const at::Tensor& rows_ND) {
  sum_VD.add_(at::embedding_dense_backward(rows_ND.to(sum_VD.scalar_type()), ids_N, sum_VD.size(0),
                                           /*padding_idx=*/-1, /*scale_grad_by_freq=*/false));
}

}  // namespace fathom::kernels::embedding_ref
