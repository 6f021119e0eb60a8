#include "nn/spectrogram_stem.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "kernels/product_type.h"

namespace fathom {
namespace {

constexpr int64_t kWidth = 3;

struct Convolution {
  const at::Tensor& weight;
  const at::Tensor& bias;
  int64_t stride;
  int64_t groups;
};

at::Tensor convolve(const at::Tensor& x_BCS, const Convolution& with, const ForwardContext& context) {
  const auto type = kernels::product_type(x_BCS);
  const auto weight = context.narrowed(with.weight, type).to(type),
             bias = context.narrowed(with.bias, type).to(type);
  return at::gelu(at::conv1d(x_BCS.to(type), weight, bias, {with.stride}, {kWidth / 2}, {1}, with.groups))
      .to(x_BCS.scalar_type());
}

/// Zeros behind each clip's end.
at::Tensor silence_padding(const at::Tensor& x_BCS, const at::Tensor& frames_B) {
  if (!frames_B.defined()) return x_BCS;
  const auto place_S = at::arange(x_BCS.size(2), frames_B.options());
  return x_BCS * place_S.lt(frames_B.unsqueeze(1)).unsqueeze(1).to(x_BCS.scalar_type());
}

}  // namespace

SpectrogramStemImpl::SpectrogramStemImpl(const SpectrogramStemOptions& options) : options_(options) {
  FATHOM_CHECK(options.channels % options.groups == 0, "[spectrogram_stem] {} channels in {} groups",
               options.channels, options.groups);
  const int64_t out = options.groups * options.dim;
  first_weight_ =
      register_parameter("first_weight", at::empty({out, options.channels / options.groups, kWidth}));
  first_bias_ = register_parameter("first_bias", at::empty({out}));
  second_weight_ = register_parameter("second_weight", at::empty({out, options.dim, kWidth}));
  second_bias_ = register_parameter("second_bias", at::empty({out}));
}

at::Tensor SpectrogramStemImpl::forward(const at::Tensor& x_BFS, const at::Tensor& frames_B,
                                        const ForwardContext& context) const {
  auto y =
      convolve(silence_padding(x_BFS, frames_B), {first_weight_, first_bias_, 1, options_.groups}, context);
  y = convolve(silence_padding(y, frames_B), {second_weight_, second_bias_, options_.stride, options_.groups},
               context);
  return y.view({y.size(0), options_.groups, options_.dim, y.size(2)}).transpose(2, 3);
}

int64_t SpectrogramStemImpl::num_tokens(int64_t frames) const {
  return (frames + options_.stride - 1) / options_.stride;
}

at::Tensor SpectrogramStemImpl::num_tokens(const at::Tensor& frames_B) const {
  return (frames_B + (options_.stride - 1)).div(options_.stride, "floor");
}

void SpectrogramStemImpl::initialise(ParameterInit& init) const {
  const auto deviation = [](const at::Tensor& weight) {
    return 1.0 / std::sqrt(static_cast<double>(weight.size(1) * kWidth));
  };
  init.normal("first_weight", deviation(first_weight_));
  init.normal("second_weight", deviation(second_weight_));
  init.constant("first_bias", 0.0);
  init.constant("second_bias", 0.0);
}

}  // namespace fathom
