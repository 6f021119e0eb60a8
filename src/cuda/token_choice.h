// What the registration of token choice hands to its kernels: raw pointers and a stream. See
// kernels/counted_rows.h for the meaning of each.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

constexpr int kScoreChunk = 32;  ///< tokens that a block walks over

struct CausalScoreArgs {
  const float* both;  ///< [sequences, tokens, 2 · inner]
  const void* shift;  ///< [2 · inner]
  const void* out;    ///< [inner]
  const void* bias;   ///< [1]
  float* partial;  ///< [sequences, chunks, inner], chunks = ⌈tokens / kScoreChunk⌉: their sums of other
  float* sum;      ///< [sequences, inner]
  float* score;    ///< [sequences, tokens]
  int64_t sequences;
  int64_t tokens;
  int64_t inner;
};

/// Its gradient. `parameter_partial` [sequences, chunks, 3 · inner + 1], to be summed: gradients of shift,
/// out and bias.
struct CausalScoreGradArgs {
  CausalScoreArgs forward;  ///< both, shift, out, partial (as there), and the sizes
  const float* grad;        ///< [sequences, tokens]
  const float* scale;       ///< [sequences, tokens], which grad_both is multiplied with
  float* own;               ///< [sequences, tokens, inner]
  float* tail;              ///< [sequences, chunks, inner]
  void* grad_both;          ///< [sequences, tokens, 2 · inner]
  float* parameter_partial;
};

struct ChooseRowsArgs {
  const float* score;   ///< or null
  const bool* decided;  ///< [sequences · tokens], or null: scores decide
  bool* active;         ///< written where scores decide
  const bool* present;  ///< [sequences · tokens]: the others are padding; or null
  double* counts;       ///< [3], or null
  const int64_t* key;   ///< [sequences], or null: nothing is explored
  int64_t stream;
  float explore;
  int32_t* place;
  int32_t* slot;
  int32_t* border;  ///< [sequences + 2]
  int64_t sequences;
  int64_t tokens;
};

// All REQUIRE sequences and tokens: a grid without blocks is an error.

/// `inner` at most 1,024 and a multiple of 32.
bool causal_scores_fit(int64_t inner);
/// Writes `partial`, of `both`: what the others read.
cudaError_t launch_chunk_sums(const CausalScoreArgs& args, cudaStream_t stream);
/// `type`: of shift, out and bias; not kDouble.
cudaError_t launch_causal_scores(ElementType type, const CausalScoreArgs& args, cudaStream_t stream);
/// `grad_type`: of grad_both.
cudaError_t launch_causal_scores_backward(ElementType type, ElementType grad_type,
                                          const CausalScoreGradArgs& args, cudaStream_t stream);
cudaError_t launch_choose_rows(const ChooseRowsArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
