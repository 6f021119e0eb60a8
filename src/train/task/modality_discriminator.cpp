#include "train/task/modality_discriminator.h"

#include <torch/torch.h>

#include <cmath>

#include "nn/grad_reversal.h"

namespace fathom {

ModalityDiscriminatorImpl::ModalityDiscriminatorImpl(int64_t dim) {
  const auto layer = [](int64_t in, int64_t out) {
    return Linear(
        LinearOptions{.in = in, .out = out, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))});
  };
  hidden_ = register_module("hidden", layer(dim, dim));
  out_ = register_module("out", layer(dim, 1));
}

at::Tensor ModalityDiscriminatorImpl::forward(const at::Tensor& embedding_ND) {
  // Elements of a unit vector are small; of this length they are about 1.
  const at::Tensor x_ND = embedding_ND * std::sqrt(static_cast<double>(embedding_ND.size(1)));
  const at::Tensor wide_ND = x_ND.to(hidden_->weight().scalar_type());
  const at::Tensor logit_N = out_->forward(at::gelu(hidden_->forward(wide_ND))).squeeze(1);
  return logit_N.to(at::promote_types(logit_N.scalar_type(), at::kFloat));
}

at::Tensor ModalityDiscriminatorImpl::adversarial_loss(const at::Tensor& image_VD, const at::Tensor& text_MD,
                                                       int64_t num_images, int64_t num_texts,
                                                       double strength) {
  const at::Tensor image_V = forward(reverse_gradient(image_VD, strength));
  const at::Tensor text_M = forward(reverse_gradient(text_MD, strength));
  return -0.5 * (at::log_sigmoid(image_V).sum() / static_cast<double>(num_images) +
                 at::log_sigmoid(-text_M).sum() / static_cast<double>(num_texts));
}

}  // namespace fathom
