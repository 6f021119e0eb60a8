// What the registration of a causal gate's scorer hands to its product: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"
#include "cuda/token_choice.h"

namespace fathom::cuda {

struct ScorerProductArgs {
  const void* x;        ///< [sequences, tokens, dim]
  const void* norm;     ///< [dim]
  const void* project;  ///< [2 · inner, dim]
  float* both;          ///< [sequences, tokens, 2 · inner]
  float* scale;         ///< [sequences, tokens], 1 / root mean square
  float* partial;       ///< as in CausalScoreArgs
  int64_t sequences;
  int64_t tokens;
  int64_t dim;
  int64_t inner;
  float eps;
};

/// Half or bfloat16, dim a multiple of 8 up to 8,192, inner of 32, at most 65,535 sequences. Pointers have to
/// lie at multiples of 16 bytes. For Hopper alone.
bool scorer_product_fits(ElementType type, int64_t sequences, int64_t dim, int64_t inner);
cudaError_t launch_scorer_product(ElementType type, const ScorerProductArgs& args, cudaStream_t stream);

/// Gradients of the norm's weight and the projection, of that of their product `joint`.
struct ScorerWeightGradArgs {
  const float* joint;   ///< [2 · inner, dim]
  const void* norm;     ///< [dim]
  const void* project;  ///< [2 · inner, dim]
  float* grad_norm;     ///< [dim]
  float* grad_project;  ///< [2 · inner, dim]
  int64_t dim;
  int64_t inner;
};
/// `type`: of norm and project; not kDouble.
cudaError_t launch_scorer_weight_grad(ElementType type, const ScorerWeightGradArgs& args,
                                      cudaStream_t stream);

}  // namespace fathom::cuda
