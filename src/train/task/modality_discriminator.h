// Tells modalities apart by their embeddings, so that the towers learn to leave it no way to.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "nn/linear.h"
#include "train/task/row_count.h"

namespace fathom {

/// A perceptron of one hidden layer on embeddings in the shared space; a part of training, not of the model.
/// Source: Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016.
class ModalityDiscriminatorImpl : public torch::nn::Module {
 public:
  /// Of `modalities` ≥ 2 kinds of embeddings.
  ModalityDiscriminatorImpl(int64_t dim, int64_t modalities);

  /// This rank's embeddings of one modality.
  struct Part {
    at::Tensor embedding_ND;  ///< unit length
    at::Tensor present_N;     ///< bool: rows that count; undefined: all
    RowCount count;           ///< how many count over all ranks
  };

  /// Unit-length embeddings [N, D] → the logarithm of the probability of modality `which`, [N].
  at::Tensor log_probability(const at::Tensor& embedding_ND, int64_t which);
  /// The mean over modalities (in the order of their numbers) of the mean cross-entropy over their
  /// embeddings, of which these are a share. The gradient that reaches the embeddings is that of the loss
  /// times −strength, a scalar on their device (nn/grad_reversal.h).
  at::Tensor adversarial_loss(const std::vector<Part>& parts, const at::Tensor& strength);

 private:
  int64_t modalities_;
  Linear hidden_{nullptr};
  Linear out_{nullptr};  ///< of two modalities one logit: that of the first
};
TORCH_MODULE(ModalityDiscriminator);

/// Weights that each embedding of width `dim` is multiplied with.
int64_t discriminator_products(int64_t dim, int64_t modalities);

}  // namespace fathom
