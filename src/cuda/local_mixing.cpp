// fathom::local_mixing on a GPU: checks and registration. What the kernels do not take goes to LibTorch's
// convolution.
#include "cuda/local_mixing.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "cuda/sum_of_parts.h"
#include "kernels/local_mixing_parts.h"

namespace fathom::cuda {
namespace {

namespace parts = kernels::local_mixing_parts;

MapShape shape_of(const at::Tensor& x) {
  return {.samples = x.size(0), .height = x.size(1), .width = x.size(2), .channels = x.size(3)};
}

bool takes(const at::Tensor& x, const at::Tensor& weight) {
  return weight.size(2) == kMixingSide && local_mixing_fits(element_type_of(x, "local_mixing"), shape_of(x));
}

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  FATHOM_CHECK(x.dim() == 4 && weight.dim() == 4 && weight.size(0) == x.size(3) &&
                   bias.numel() == x.size(3) && weight.device() == x.device() && bias.device() == x.device(),
               "[local_mixing] expected a map and weights of its channels on {}", x.device().str());
}

at::Tensor local_mixing(const at::Tensor& x_in, const at::Tensor& weight_in, const at::Tensor& bias_in) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  check(x_in, weight_in, bias_in);
  if (!takes(x_in, weight_in)) return parts::forward(x_in, weight_in, bias_in, x_in.scalar_type());
  const auto x = aligned16(x_in), weight = weight_in.to(at::kFloat).contiguous(),
             bias = bias_in.to(at::kFloat).contiguous();
  auto y = at::empty_like(x);
  C10_CUDA_CHECK(launch_local_mixing(element_type_of(x, "local_mixing"),
                                     {.x = x.const_data_ptr(),
                                      .weight = weight.const_data_ptr<float>(),
                                      .bias = bias.const_data_ptr<float>(),
                                      .y = y.mutable_data_ptr(),
                                      .shape = shape_of(x)},
                                     c10::cuda::getCurrentCUDAStream()));
  return y;
}

parts::Three local_mixing_backward(const at::Tensor& grad_in, const at::Tensor& x_in,
                                   const at::Tensor& weight_in, const at::Tensor& bias) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  check(x_in, weight_in, bias);
  FATHOM_CHECK(grad_in.sizes() == x_in.sizes() && grad_in.scalar_type() == x_in.scalar_type() &&
                   grad_in.device() == x_in.device(),
               "[local_mixing] expected a gradient like the map");
  if (!takes(x_in, weight_in)) return parts::backward(grad_in, x_in, weight_in, bias, x_in.scalar_type());
  const auto x = aligned16(x_in), grad = aligned16(grad_in), weight = weight_in.to(at::kFloat).contiguous();
  const ElementType type = element_type_of(x, "local_mixing");
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const MapShape shape = shape_of(x);
  auto grad_x = at::empty_like(x);
  C10_CUDA_CHECK(launch_local_mixing(type,
                                     {.x = grad.const_data_ptr(),
                                      .weight = weight.const_data_ptr<float>(),
                                      .y = grad_x.mutable_data_ptr(),
                                      .shape = shape,
                                      .turned = true},
                                     stream));
  const int64_t count = local_mixing_parts_of(shape), weights = shape.channels * kMixingPlaces;
  auto partial = at::empty({count, weights + shape.channels}, x.options().dtype(at::kFloat));
  C10_CUDA_CHECK(launch_local_mixing_grad(type,
                                          {.grad = grad.const_data_ptr(),
                                           .x = x.const_data_ptr(),
                                           .partial = partial.mutable_data_ptr<float>(),
                                           .shape = shape,
                                           .parts = count},
                                          stream));
  const auto sums = sum_of_parts(partial, at::kFloat);
  return {grad_x, sums.narrow(0, 0, weights).view(weight_in.sizes()).to(weight_in.scalar_type()),
          sums.narrow(0, weights, shape.channels).to(bias.scalar_type())};
}

}  // namespace

void register_local_mixing(torch::Library& library) {
  library.impl("local_mixing", local_mixing);
  library.impl("local_mixing_backward", local_mixing_backward);
}

}  // namespace fathom::cuda
