// Where the embeddings of each modality lie on average, and a model that is used with that taken off.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "evaluate/retrieval_data.h"

namespace fathom {

/// A model has other centres (DualTower::centres) as long as this lives.
class CentresInUse {
 public:
  /// `used`: one for each of `centres`, of its shape.
  CentresInUse(std::vector<at::Tensor> centres, const std::vector<at::Tensor>& used);
  ~CentresInUse();
  CentresInUse(const CentresInUse&) = delete;
  CentresInUse& operator=(const CentresInUse&) = delete;

 private:
  std::vector<at::Tensor> centres_, own_;
};

/// Centres (DualTower::centres, in their order) with which the embeddings of these pictures, of all their
/// captions and of these sounds have a mean of zero each; the model keeps those that it has. Where there are
/// no sounds, their centre is the model's.
std::vector<at::Tensor> measure_centres(DualTower model, const RetrievalData& data,
                                        const EvaluateOptions& options = {});

}  // namespace fathom
