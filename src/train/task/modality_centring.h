// Keeps each modality's embeddings around the origin of the shared space.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

namespace fathom {

/// Moves a dual tower's centres (DualTower::centres) step by step to where the embeddings of each modality
/// have a mean of zero: each takes on a fiftieth of the mean of the step's embeddings, which were made with
/// the centre as it was. In training and in use the towers see the same thing, a constant that is taken off.
/// A gap between the means is what linear probes tell modalities by (Liang et al., "Mind the gap", NeurIPS
/// 2022). One thread.
class ModalityCentring {
 public:
  explicit ModalityCentring(std::vector<at::Tensor> centres);

  /// Embeddings [N, D] of modality `which`, of all ranks; `present_N`, bool: those that count, undefined for
  /// all. Launches the same operations whatever the tensors hold. Once a step for each modality.
  void observe(size_t which, const at::Tensor& embedding_ND, const at::Tensor& present_N);
  /// Moves the centres by what was observed.
  void after_step();

 private:
  std::vector<at::Tensor> centres_;
  std::vector<at::Tensor> means_;  ///< of this step's embeddings
};

}  // namespace fathom
