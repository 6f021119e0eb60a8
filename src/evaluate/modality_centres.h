// Where the embeddings of each modality lie on average.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "evaluate/retrieval_data.h"

namespace fathom {

/// Centres (DualTower::centres, in their order) with which the embeddings of these pictures, of all their
/// captions and of these sounds have a mean of zero each; the model keeps those that it has. Where there are
/// no sounds, their centre is the model's.
std::vector<at::Tensor> measure_centres(DualTower model, const RetrievalData& data,
                                        const EvaluateOptions& options = {});

}  // namespace fathom
