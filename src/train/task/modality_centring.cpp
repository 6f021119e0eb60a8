// N rows, D width.
#include "train/task/modality_centring.h"

#include <torch/torch.h>

namespace fathom {
namespace {

constexpr double kShare = 0.02;

}  // namespace

ModalityCentring::ModalityCentring(std::vector<at::Tensor> centres) : centres_(std::move(centres)) {
  for (const at::Tensor& centre_D : centres_) means_.push_back(at::zeros_like(centre_D));
}

void ModalityCentring::observe(size_t which, const at::Tensor& embedding_ND, const at::Tensor& present_N) {
  const torch::NoGradGuard no_grad;
  if (!present_N.defined()) {
    means_[which].copy_(embedding_ND.mean(0));
    return;
  }
  const at::Tensor sum_D = embedding_ND.masked_fill(present_N.logical_not().unsqueeze(1), 0).sum(0);
  means_[which].copy_(sum_D / present_N.sum().clamp_min(1));
}

void ModalityCentring::after_step() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < centres_.size(); ++i) centres_[i].add_(means_[i], kShare);
}

}  // namespace fathom
