#include "nn/patch.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "kernels/linear.h"
#include "kernels/merged_layer_norm.h"

namespace fathom {

PatchEmbedImpl::PatchEmbedImpl(const PatchEmbedOptions& options) : options_(options) {
  weight_ =
      register_parameter("weight", at::empty({options.dim, options.channels, options.patch, options.patch}));
  bias_ = register_parameter("bias", at::empty({options.dim}));
  if (options.convolutions)
    convolution_stem_ =
        register_module("convolution_stem", ConvolutionStem(options.channels, options.dim, options.patch));
  norm_ = register_module("norm", LayerNorm(options.dim, options.norm_eps));
}

at::Tensor PatchEmbedImpl::forward(const at::Tensor& image_BCHW, const ForwardContext& context) {
  const int64_t patch = options_.patch;
  if (image_BCHW.dim() != 4 || image_BCHW.size(1) != options_.channels || image_BCHW.size(2) % patch != 0 ||
      image_BCHW.size(3) % patch != 0)
    fail(ErrorKind::kRequest, "images must be [B, {}, height, width] with sides that {} divides, got [{}]",
         options_.channels, patch, fmt::join(image_BCHW.sizes().vec(), ", "));
  const int64_t batch = image_BCHW.size(0), rows = image_BCHW.size(2) / patch,
                columns = image_BCHW.size(3) / patch;
  const auto patches = image_BCHW.reshape({batch, options_.channels, rows, patch, columns, patch})
                           .permute({0, 2, 4, 1, 3, 5})
                           .reshape({batch, rows, columns, -1});
  const auto type = kernels::product_type(patches);
  const auto embedded = kernels::linear(patches, context.narrowed(weight_, type).flatten(1),
                                        context.narrowed(bias_, type), context.linear_types(patches));
  if (convolution_stem_.is_empty()) return norm_(embedded);
  return norm_(embedded + convolution_stem_(image_BCHW, context).to(embedded.scalar_type()));
}

void PatchEmbedImpl::initialise(ParameterInit& init) const {
  init.normal("weight", 0.02);
  init.constant("bias", 0.0);
}

PatchMergingImpl::PatchMergingImpl(int64_t dim, double norm_eps) {
  norm_ = register_module("norm", LayerNorm(4 * dim, norm_eps));
  reduction_ =
      register_module("reduction", Linear(LinearOptions{.in = 4 * dim, .out = 2 * dim, .bias = false}));
}

at::Tensor PatchMergingImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  return forward_stream({x}, context);
}

at::Tensor PatchMergingImpl::forward_stream(const Residual& stream, const ForwardContext& context) {
  const int64_t odd_rows = stream.x.size(1) % 2, odd_columns = stream.x.size(2) % 2;
  const bool is_even = odd_rows + odd_columns == 0;
  const auto branch = is_even ? stream.open() : std::nullopt;
  auto x = branch ? stream.x : stream.sum();
  if (!is_even) x = at::constant_pad_nd(x, {0, 0, 0, odd_columns, 0, odd_rows});
  return reduction_(kernels::merged_layer_norm(x, branch.value_or(kernels::Branch{}), norm_->weight(),
                                               norm_->bias(), norm_->eps()),
                    context);
}

}  // namespace fathom
