#include "nn/lora.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "kernels/linear.h"
#include "nn/residual.h"

namespace fathom {

LoraImpl::LoraImpl(const LoraOptions& options) : options_(options) {
  FATHOM_CHECK(options.rank >= 1, "[lora] expected a rank of at least 1, got {}", options.rank);
  a_ = register_parameter("a", at::empty({options.rank, options.in}));
  b_ = register_parameter("b", at::empty({options.out, options.rank}));
}

at::Tensor LoraImpl::forward(const at::Tensor& x, const ForwardContext& context, Feeds feeds) const {
  at::Tensor input = x;
  if (options_.dropout > 0 && context.drops()) {
    // Windows of one picture lie behind each other: all of a sample's rows share its key.
    const auto rows = x.reshape({context.key_B.size(0), -1, x.size(-1)});
    input = dropout(rows, options_.dropout, options_.stream, context).view(x.sizes());
  }
  const at::Tensor inner = kernels::linear(input, a_, {}, context.linear_types(input, Feeds::kProduct));
  return kernels::linear(inner, b_, {}, context.linear_types(inner, feeds)) * scale();
}

at::Tensor LoraImpl::delta() const {
  return at::mm(b_, a_) * scale();
}

void LoraImpl::initialise(ParameterInit& init) const {
  init.normal("a", 1.0 / std::sqrt(static_cast<double>(options_.in)));
  init.constant("b", 0.0);
}

}  // namespace fathom
