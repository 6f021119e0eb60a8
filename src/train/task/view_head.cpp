#include "train/task/view_head.h"

#include <torch/torch.h>

#include <cmath>

namespace fathom {
namespace {

constexpr int64_t kViewHeadWidth = 512;
constexpr int64_t kViewWidth = 128;

Linear make_linear(int64_t in, int64_t out) {
  return Linear(
      LinearOptions{.in = in, .out = out, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))});
}

}  // namespace

ViewHeadImpl::ViewHeadImpl(int64_t in)
    : hidden_(register_module("hidden", make_linear(in, kViewHeadWidth))),
      out_(register_module("out", make_linear(kViewHeadWidth, kViewWidth))) {}

at::Tensor ViewHeadImpl::forward(const at::Tensor& pooled_BD) {
  const at::Tensor wide_BD = pooled_BD.to(hidden_->weight().scalar_type());
  const at::Tensor view_BD = out_->forward(at::gelu(hidden_->forward(wide_BD)));
  return view_BD / at::linalg_vector_norm(view_BD, 2, {-1}, true).clamp_min(1e-12);
}

int64_t view_head_products(int64_t in) {
  return (in + kViewWidth) * kViewHeadWidth;
}

}  // namespace fathom
