// What the registration of scores by a row's mean hands to their kernels: raw pointers and a stream. See
// kernels/row_scores.h for the meaning of each.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

constexpr int kRowScoreChunk = 64;  ///< tokens of a block

struct RowScoreArgs {
  const float* both;    ///< [sequences, tokens, 2 · inner]
  const void* shift;    ///< [2 · inner]
  const void* out;      ///< [inner]
  const void* bias;     ///< [1]
  const bool* present;  ///< [sequences, tokens], or null
  float* partial;  ///< [sequences, chunks, inner + 1], chunks = ⌈tokens / kRowScoreChunk⌉: sums of other over
                   ///< present tokens, and their number
  float* score;  ///< [sequences, tokens]
  int64_t sequences;
  int64_t tokens;
  int64_t inner;  ///< at most kernels::kMostRowScoreInner
};

/// `partial` of the forward pass is read. `sums` [sequences, chunks, 3 · inner + 1], to be summed: gradients
/// of shift, out and bias.
struct RowScoreGradArgs {
  RowScoreArgs forward;
  const float* grad;   ///< [sequences, tokens], 0 at padding
  const float* scale;  ///< [sequences, tokens], which grad_both is multiplied with
  void* grad_both;     ///< [sequences, tokens, 2 · inner]
  float* sums;
};

/// Both REQUIRE sequences (fewer than 65,536) and tokens. `type`: of shift, out and bias; not kDouble.
cudaError_t launch_row_scores(ElementType type, const RowScoreArgs& args, cudaStream_t stream);
/// `grad_type`: of grad_both.
cudaError_t launch_row_scores_backward(ElementType type, ElementType grad_type, const RowScoreGradArgs& args,
                                       cudaStream_t stream);

}  // namespace fathom::cuda
