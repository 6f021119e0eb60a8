// How much each modality has to say about a question. B batch, T tokens of the question, S states of all
// modalities, N modalities, D model width, E width of queries and keys.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <vector>

#include "nn/forward_context.h"
#include "nn/linear.h"

namespace fathom {

/// The softmax mass that falls on each modality when the question's tokens attend to the tokens of all
/// (docs/design.md, section 7).
class ModalityWeightImpl : public torch::nn::Module {
 public:
  /// `width`: E.
  ModalityWeightImpl(int64_t dim, int64_t width);
  /// `state_BSD`: the modalities' states, normed, one modality behind the other, the question's last;
  /// `mask_BS`: bool, which of them there are; `sizes`: how many of S belong to each modality. Result: the
  /// mean over the question's tokens, [B, N] in float32 or wider, rows of sum 1. REQUIRES a token of the
  /// question in each row.
  at::Tensor forward(const at::Tensor& state_BSD, const at::Tensor& mask_BS,
                     const std::vector<int64_t>& sizes, const ForwardContext& context = {});

 private:
  Linear query_{nullptr};
  Linear key_{nullptr};
};
TORCH_MODULE(ModalityWeight);

}  // namespace fathom
