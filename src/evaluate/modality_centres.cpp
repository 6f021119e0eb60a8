#include "evaluate/modality_centres.h"

#include <torch/torch.h>

#include <utility>

namespace fathom {
namespace {

/// The geometric median, which leaves directions to it a mean of zero, by Weiszfeld's method ("Sur le point
/// pour lequel la somme des distances de n points donnés est minimum", 1937): [D].
at::Tensor centre_of(const at::Tensor& unit_ND) {
  constexpr int kRounds = 30;
  at::Tensor centre_D = unit_ND.mean(0);
  for (int round = 0; round < kRounds; ++round) {
    const at::Tensor near_N1 =
        (unit_ND - centre_D).norm(2, {1}, /*keepdim=*/true).clamp_min(1e-9).reciprocal();
    centre_D = (unit_ND * near_N1).sum(0) / near_N1.sum();
  }
  return centre_D;
}

}  // namespace

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

std::vector<at::Tensor> measure_centres(DualTower model, const RetrievalData& data,
                                        const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  const std::vector<at::Tensor> centres = model->centres();
  std::vector<at::Tensor> origin;
  for (const at::Tensor& centre_D : centres) origin.push_back(at::zeros_like(centre_D));
  // Before the centres are set aside.
  const at::Tensor silent_D = centres.size() > 2 && !data.sounds ? centres[2].clone() : at::Tensor();
  const CentresInUse in_use(centres, origin);
  std::vector<at::Tensor> found = {centre_of(embed_images(model, data.images, options)),
                                   centre_of(embed_texts(model, data.texts, options))};
  if (centres.size() > 2)
    found.push_back(data.sounds ? centre_of(embed_sounds(model, data.sounds, options)) : silent_D);
  return found;
}

}  // namespace fathom
