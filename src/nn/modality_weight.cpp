#include "nn/modality_weight.h"

#include <ATen/ATen.h>

#include <cmath>

namespace fathom {

ModalityWeightImpl::ModalityWeightImpl(int64_t dim, int64_t width) {
  const LinearOptions options{.in = dim, .out = width, .bias = false};
  query_ = register_module("query", Linear(options));
  key_ = register_module("key", Linear(options));
}

at::Tensor ModalityWeightImpl::forward(const at::Tensor& state_BSD, const at::Tensor& mask_BS,
                                       const std::vector<int64_t>& sizes, const ForwardContext& context) {
  const int64_t states = state_BSD.size(1), first = states - sizes.back();
  const at::Tensor q_BTE = query_(state_BSD.slice(1, first), context), k_BSE = key_(state_BSD, context);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q_BTE.size(2)));
  at::Tensor score_BTS = at::matmul(q_BTE, k_BSE.transpose(1, 2)) * scale;
  score_BTS = score_BTS.to(at::promote_types(score_BTS.scalar_type(), at::kFloat));
  const at::Tensor share_BTS =
      score_BTS.masked_fill(mask_BS.logical_not().unsqueeze(1), -INFINITY).softmax(2);
  const at::Tensor asks_BT = mask_BS.slice(1, first);
  const at::Tensor asked_BTS = share_BTS.masked_fill(asks_BT.logical_not().unsqueeze(2), 0);
  const at::Tensor mean_BS = asked_BTS.sum(1) / asks_BT.sum(1, /*keepdim=*/true);
  std::vector<at::Tensor> mass;
  for (const at::Tensor& part_BS : mean_BS.split_with_sizes(sizes, 1)) mass.push_back(part_BS.sum(1));
  return at::stack(mass, 1);
}

}  // namespace fathom
