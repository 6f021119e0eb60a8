// Bottleneck adapter. Source: Houlsby et al., "Parameter-efficient transfer learning for NLP", ICML 2019.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/forward_context.h"
#include "nn/linear.h"

namespace fathom {

struct AdapterOptions {
  int64_t dim = 0;
  int64_t bottleneck = 0;
};

/// x + up(GELU(down(x))). `up` begins with zeros, so an adapter begins as the identity.
class AdapterImpl : public torch::nn::Module {
 public:
  explicit AdapterImpl(const AdapterOptions& options);
  /// [..., D] → [..., D].
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context = {});

 private:
  Linear down_{nullptr};
  Linear up_{nullptr};
};
TORCH_MODULE(Adapter);

}  // namespace fathom
