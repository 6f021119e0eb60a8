#include "kernels/row_scores.h"

#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {

std::pair<at::Tensor, at::Tensor> row_scores(const at::Tensor& both, const ScorerWeights& weights,
                                             const at::Tensor& present_BT) {
  static const auto op =
      find_op<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                 const at::Tensor&, const std::optional<at::Tensor>&)>(
          "fathom::row_scores");
  const int64_t inner = weights.out.numel();
  FATHOM_CHECK(both.dim() == 3 && both.size(2) == 2 * inner && weights.shift.numel() == 2 * inner &&
                   weights.bias.numel() == 1 &&
                   (!present_BT.defined() || present_BT.numel() == both.size(0) * both.size(1)),
               "[row_scores] expected [B, T, {}], and which tokens are present", 2 * inner);
  auto [score_BT, sums] = op.call(both, weights.shift, weights.out, weights.bias, optional(present_BT));
  return {score_BT, sums};
}

std::pair<at::Tensor, ScorerWeights> row_scores_backward(const at::Tensor& grad_BT,
                                                         const ScorerProduct& product,
                                                         const ScorerWeights& weights,
                                                         const at::Tensor& present_BT, at::ScalarType type) {
  static const auto op = find_op<std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
      const at::Tensor&, const std::optional<at::Tensor>&, at::ScalarType)>("fathom::row_scores_backward");
  auto [grad_both, shift, out, bias] = op.call(grad_BT, product.both, product.chunk_sums, weights.shift,
                                               weights.out, product.scale_BT1, optional(present_BT), type);
  return {grad_both, {shift, out, bias}};
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "row_scores(Tensor both, Tensor shift, Tensor out, Tensor bias, Tensor? present) -> (Tensor, Tensor)");
  library.def(
      "row_scores_backward(Tensor grad, Tensor both, Tensor sums, Tensor shift, Tensor out, Tensor scale, "
      "Tensor? present, ScalarType type) -> (Tensor, Tensor, Tensor, Tensor)");
}

}  // namespace fathom::kernels
