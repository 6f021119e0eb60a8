#include "train/task/modality_centring.h"

#include <torch/torch.h>

#include <utility>

namespace fathom {

CentresInUse::CentresInUse(std::vector<at::Tensor> centres, const std::vector<at::Tensor>& used)
    : centres_(std::move(centres)) {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < centres_.size(); ++i) {
    own_.push_back(centres_[i].clone());
    centres_[i].copy_(used[i]);
  }
}

CentresInUse::~CentresInUse() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < centres_.size(); ++i) centres_[i].copy_(own_[i]);
}

}  // namespace fathom
