#include "evaluate/modality_centres.h"

#include <torch/torch.h>

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

std::vector<at::Tensor> measure_centres(DualTower model, const RetrievalData& data,
                                        const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  const std::vector<at::Tensor> centres = model->centres();
  std::vector<at::Tensor> own, found;
  for (const at::Tensor& centre_D : centres) {
    own.push_back(centre_D.clone());
    centre_D.zero_();
  }
  found.push_back(centre_of(embed_images(model, data.images, options)));
  found.push_back(centre_of(embed_texts(model, data.texts, options)));
  if (centres.size() > 2)
    found.push_back(data.sounds ? centre_of(embed_sounds(model, data.sounds, options)) : own[2]);
  for (size_t i = 0; i < centres.size(); ++i) centres[i].copy_(own[i]);
  return found;
}

}  // namespace fathom
