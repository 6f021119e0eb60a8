// What the references of counted rows share: here the host may ask how many rows there are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/counted_rows.h"

namespace fathom::kernels::counted_rows_ref {

/// The last of `start_S1`.
int64_t count_of(const at::Tensor& start_S1);
/// `used` [n, ...] with rows of 0 behind: [room, ...].
at::Tensor with_room(const at::Tensor& used, int64_t room);
/// int64, of the rows that `start_S1` counts.
at::Tensor places(const at::Tensor& place_N, const at::Tensor& start_S1);
/// int64: the places of the rows that `start_S1` counts, where these are the active ones, in rising order,
/// and which rows they are.
struct PlacesInUse {
  at::Tensor place_n, row_n;
};
PlacesInUse places_in_use(const at::Tensor& slot_N, const at::Tensor& start_S1);
/// bool [n, n]: which row looks at which.
at::Tensor rows_seen(const at::Tensor& place_n, int64_t active, int64_t tokens, bool causal);

}  // namespace fathom::kernels::counted_rows_ref
