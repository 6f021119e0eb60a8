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
  float* partial;     ///< [sequences, chunks, inner], chunks = ⌈tokens / kScoreChunk⌉
  float* sum;         ///< [sequences, inner]
  float* score;       ///< [sequences, tokens]
  int64_t sequences;
  int64_t tokens;
  int64_t inner;
};

struct ChooseRowsArgs {
  const float* score;  ///< or null, where `active` decides
  bool* active;        ///< [sequences · tokens]; written where scores decide
  double* counts;      ///< [3], or null
  int32_t* place;
  int32_t* slot;
  int32_t* start;
  int64_t sequences;
  int64_t tokens;
};

/// `inner` at most 1,024 and a multiple of 32.
bool causal_scores_fit(int64_t inner);
/// `type`: of shift, out and bias; not kDouble.
cudaError_t launch_causal_scores(ElementType type, const CausalScoreArgs& args, cudaStream_t stream);
cudaError_t launch_choose_rows(const ChooseRowsArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
