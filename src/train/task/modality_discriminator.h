// Tells pictures from texts by their embeddings, so that the towers learn to leave it no way to.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "nn/linear.h"

namespace fathom {

/// A perceptron of one hidden layer on embeddings in the shared space; a part of training, not of the model.
/// Source: Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016.
class ModalityDiscriminatorImpl : public torch::nn::Module {
 public:
  explicit ModalityDiscriminatorImpl(int64_t dim);

  /// Unit-length embeddings [N, D] → logits of "a picture", [N].
  at::Tensor forward(const at::Tensor& embedding_ND);
  /// Half the mean cross-entropy over pictures plus half that over texts, of `num_images` and `num_texts`
  /// over all ranks, of which these are a share. The gradient that reaches the embeddings is that of the loss
  /// times −strength (nn/grad_reversal.h).
  at::Tensor adversarial_loss(const at::Tensor& image_VD, const at::Tensor& text_MD, int64_t num_images,
                              int64_t num_texts, double strength);

 private:
  Linear hidden_{nullptr};
  Linear out_{nullptr};
};
TORCH_MODULE(ModalityDiscriminator);

}  // namespace fathom
