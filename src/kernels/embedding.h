// Rows of a table and its gradient. N ids, V vocabulary, D width.
#pragma once

#include <ATen/core/Tensor.h>

#include "tensor/gradient_rooms.h"

namespace fathom::kernels {

/// Rows of `weight_VD` at `ids` (int64, of any shape), in `type`: [..., D]. Of an id that is none of V a CPU
/// complains, and a GPU's row is no number (of float64, and of other types than the table's that are not
/// narrower, LibTorch's assertion holds there). The weight's gradient is added up as `add_embedding_rows`
/// does, where `rooms` wants it; behind another contribution (a tied head's) it is added to that in place.
at::Tensor embedding(const at::Tensor& weight_VD, const at::Tensor& ids, at::ScalarType type,
                     GradientRooms* rooms = nullptr);

/// Adds each row of `rows_ND` to that of `sum_VD` which `ids_N` (int64) names; in float32 at least, and in an
/// order that depends on the ids alone. `sum_VD`: dense; `rows_ND` of any floating type. No gradient.
void add_embedding_rows(const at::Tensor& sum_VD, const at::Tensor& ids_N, const at::Tensor& rows_ND);

namespace embedding_ref {
at::Tensor rows(const at::Tensor& weight_VD, const at::Tensor& ids, at::ScalarType type);
void add(const at::Tensor& sum_VD, const at::Tensor& ids_N, const at::Tensor& rows_ND);
}  // namespace embedding_ref

}  // namespace fathom::kernels
