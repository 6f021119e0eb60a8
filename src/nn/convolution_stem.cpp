#include "nn/convolution_stem.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/product_type.h"

namespace fathom {

std::vector<int64_t> ConvolutionStemImpl::widths(int64_t dim, int64_t patch) {
  std::vector<int64_t> widths;
  for (; patch > 1; patch /= 2) widths.push_back(std::max<int64_t>(1, 2 * dim / patch));
  return widths;
}

ConvolutionStemImpl::ConvolutionStemImpl(int64_t channels, int64_t dim, int64_t patch) {
  for (const int64_t width : widths(dim, patch)) {
    const size_t i = weight_.size();
    weight_.push_back(register_parameter(fmt::format("weight_{}", i), at::empty({width, channels, 3, 3})));
    bias_.push_back(register_parameter(fmt::format("bias_{}", i), at::empty({width})));
    channels = width;
  }
}

at::Tensor ConvolutionStemImpl::forward(const at::Tensor& image_BCHW, const ForwardContext& context) const {
  const auto type = kernels::product_type(image_BCHW);
  at::Tensor x = image_BCHW.to(type).contiguous(at::MemoryFormat::ChannelsLast);
  for (size_t i = 0; i < weight_.size(); ++i) {
    if (i > 0) x = at::gelu(x);
    x = at::conv2d(x, context.narrowed(weight_[i], type).to(type), context.narrowed(bias_[i], type).to(type),
                   /*stride=*/2, /*padding=*/1);
  }
  return x.permute({0, 2, 3, 1});
}

void ConvolutionStemImpl::initialise(ParameterInit& init) const {
  for (size_t i = 0; i < weight_.size(); ++i) {
    const auto inputs = static_cast<double>(9 * weight_[i].size(1));
    init.normal(fmt::format("weight_{}", i), std::sqrt((i == 0 ? 1.0 : 2.0) / inputs));
    init.constant(fmt::format("bias_{}", i), 0.0);
  }
}

}  // namespace fathom
