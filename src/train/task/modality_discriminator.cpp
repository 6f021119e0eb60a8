#include "train/task/modality_discriminator.h"

#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "nn/grad_reversal.h"

namespace fathom {

namespace {

/// Of two modalities one logit says which it is.
int64_t num_logits(int64_t modalities) {
  return modalities == 2 ? 1 : modalities;
}

}  // namespace

ModalityDiscriminatorImpl::ModalityDiscriminatorImpl(int64_t dim, int64_t modalities)
    : modalities_(modalities) {
  const auto layer = [](int64_t in, int64_t out) {
    return Linear(
        LinearOptions{.in = in, .out = out, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))});
  };
  hidden_ = register_module("hidden", layer(dim, dim));
  out_ = register_module("out", layer(dim, num_logits(modalities)));
}

at::Tensor ModalityDiscriminatorImpl::log_probability(const at::Tensor& embedding_ND, int64_t which) {
  // Elements of a unit vector are small; of this length they are about 1.
  const at::Tensor x_ND = embedding_ND * std::sqrt(static_cast<double>(embedding_ND.size(1)));
  const at::Tensor wide_ND = x_ND.to(hidden_->weight().scalar_type());
  const at::Tensor narrow = out_->forward(at::gelu(hidden_->forward(wide_ND)));
  const at::Tensor logit = narrow.to(at::promote_types(narrow.scalar_type(), at::kFloat));
  if (modalities_ > 2) return logit.log_softmax(1).select(1, which);
  const at::Tensor first_N = logit.squeeze(1);
  return at::log_sigmoid(which == 0 ? first_N : -first_N);
}

at::Tensor ModalityDiscriminatorImpl::adversarial_loss(const std::vector<Part>& parts,
                                                       const at::Tensor& strength) {
  FATHOM_CHECK(static_cast<int64_t>(parts.size()) == modalities_,
               "[modality_discriminator] expected {} modalities, got {}", modalities_, parts.size());
  at::Tensor sum;
  for (size_t which = 0; which < parts.size(); ++which) {
    const Part& part = parts[which];
    at::Tensor log_N =
        log_probability(reverse_gradient(part.embedding_ND, strength), static_cast<int64_t>(which));
    if (part.present_N.defined()) log_N = log_N.masked_fill(part.present_N.logical_not(), 0);
    const at::Tensor mean = part.count.divide(log_N.sum());
    sum = sum.defined() ? sum + mean : mean;
  }
  return sum / -static_cast<double>(parts.size());
}

int64_t discriminator_products(int64_t dim, int64_t modalities) {
  return dim * (dim + num_logits(modalities));
}

}  // namespace fathom
