// What a decoder's layer is made of, on a GPU against the references in float64. Skipped where there is none.
#include <ATen/ATen.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/attention.h"
#include "kernels/residual_rms_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_heads.h"
#include "kernels/swiglu.h"

namespace fathom::cuda_decoder_test {
namespace {

using testing::relative_error;

class CudaDecoder : public cuda_test::CudaKernels {};

constexpr at::ScalarType kEveryType[] = {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble};

double cuda_tolerance(at::ScalarType type) {
  return type == at::kBFloat16 ? 1e-2 : type == at::kHalf ? 2e-3 : type == at::kFloat ? 1e-5 : 1e-12;
}

std::string case_name(at::ScalarType type, at::IntArrayRef sizes) {
  std::string name = c10::toString(type);
  for (const int64_t size : sizes) name += " " + std::to_string(size);
  return name;
}

TEST_F(CudaDecoder, SwigluAndItsGradient) {
  for (const auto type : kEveryType)
    for (const auto& [rows, inner] : {std::pair<int64_t, int64_t>{0, 8},
                                      {1, 1},
                                      {1, 8},
                                      {3, 5},
                                      {7, 33},
                                      {5, 2816},
                                      {1000, 96},
                                      {70001, 24},
                                      {3, 0}}) {
      const auto x = at::randn({rows, 2 * inner}).mul(3).to(type), grad = at::randn({rows, inner}).to(type);
      const auto leaf = x.to(device_).requires_grad_();
      const auto y = kernels::swiglu(leaf);
      y.backward(grad.to(device_));
      const auto wide = x.to(at::kDouble);
      const std::string where = case_name(type, x.sizes());
      EXPECT_EQ(y.scalar_type(), type);
      EXPECT_LT(relative_error(y, kernels::swiglu_ref::forward(wide)), cuda_tolerance(type)) << where;
      EXPECT_LT(relative_error(leaf.grad(), kernels::swiglu_ref::backward(grad.to(at::kDouble), wide)),
                cuda_tolerance(type))
          << where;
    }
}

TEST_F(CudaDecoder, SwigluOfAnyLayoutAndAtExtremes) {
  const auto options = at::TensorOptions(device_);
  const auto flat = at::randn({4 * 48 + 1}, options.dtype(at::kHalf));
  for (const auto& x : {flat.narrow(0, 1, 4 * 48).view({4, 48}), flat.narrow(0, 0, 4 * 48).view({48, 4}).t()})
    EXPECT_TRUE(at::equal(kernels::swiglu(x), kernels::swiglu(x.clone(at::MemoryFormat::Contiguous))));
  const auto extreme = at::tensor({-1e30, -100.0, -88.0, 0.0, 88.0, 100.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0});
  const auto expected = kernels::swiglu_ref::forward(extreme.to(at::kDouble));
  EXPECT_LT(relative_error(kernels::swiglu(extreme.to(options.dtype(at::kFloat))), expected), 1e-6);
  EXPECT_LT(relative_error(kernels::swiglu(extreme.to(options.dtype(at::kBFloat16))), expected), 1e-2);
}

/// Gradients of x, branch and weight behind sum and norm, whose own are given; undefined ones are not there.
std::vector<at::Tensor> residual_norm_and_gradients(const std::vector<at::Tensor>& inputs,
                                                    const at::Tensor& grad_sum, const at::Tensor& grad_y) {
  std::vector<at::Tensor> leaves, outputs, grads;
  for (const auto& input : inputs) leaves.push_back(input.detach().requires_grad_());
  const auto both = kernels::residual_rms_norm(leaves[0], leaves[1], leaves[2], 1e-5);
  for (const auto& [output, grad] : {std::pair{both.sum, grad_sum}, std::pair{both.y, grad_y}})
    if (grad.defined()) {
      outputs.push_back(output);
      grads.push_back(grad);
    }
  auto result = torch::autograd::grad(outputs, leaves, grads);
  result.insert(result.end(), {both.sum, both.y});
  return result;
}

TEST_F(CudaDecoder, ResidualRmsNormAndItsGradients) {
  for (const auto type : kEveryType)
    for (const auto& [rows, dim] : {std::pair<int64_t, int64_t>{0, 64},
                                    {1, 8},
                                    {5, 24},
                                    {3, 7},
                                    {1000, 96},
                                    {40001, 192},
                                    {4096, 1024},
                                    {33, 1536},
                                    {9, 2048},
                                    {6, 4096}}) {
      const std::string where = case_name(type, {rows, dim});
      const auto parameters = type == at::kDouble ? at::kDouble : at::kFloat;
      const auto x = at::randn({rows, dim}).to(type), branch = at::randn({rows, dim}).to(type),
                 weight = at::randn({dim}).to(parameters), grad_sum = at::randn({rows, dim}).to(type),
                 grad_y = at::randn({rows, dim}).to(type);
      const auto got = residual_norm_and_gradients({x.to(device_), branch.to(device_), weight.to(device_)},
                                                   grad_sum.to(device_), grad_y.to(device_));
      // The sum and the weight are rounded before the norm.
      const auto sum = (x + branch).to(at::kDouble), rounded = weight.to(type).to(at::kDouble);
      const auto [y, scale] = kernels::rms_norm_ref::forward(sum, rounded, 1e-5);
      const auto [grad_norm, grad_weight] =
          kernels::rms_norm_ref::backward(grad_y.to(at::kDouble), sum, rounded, scale);
      const auto grad = grad_sum.to(at::kDouble) + grad_norm;
      EXPECT_TRUE(at::equal(got[0], got[1])) << where;
      EXPECT_LT(relative_error(got[0], grad), 2 * cuda_tolerance(type)) << where;
      EXPECT_LT(relative_error(got[2], grad_weight), 2 * cuda_tolerance(type)) << where;
      EXPECT_EQ(got[2].scalar_type(), parameters) << where;
      EXPECT_TRUE(at::equal(got[3].detach().cpu(), x + branch)) << where;
      EXPECT_LT(relative_error(got[4], y), cuda_tolerance(type)) << where;
    }
}

TEST_F(CudaDecoder, ResidualRmsNormOfOneOutputAloneAndOfAnyLayout) {
  const auto options = at::TensorOptions(device_).dtype(at::kBFloat16);
  const auto odd = at::randn({2 * 48 * 64 + 1}, options).narrow(0, 1, 2 * 48 * 64).view({2, 48, 64});
  const auto weight = at::randn({64}, options.dtype(at::kFloat)), grad = at::randn({2, 48, 64}, options);
  for (const auto& x : {odd, at::randn({64, 48, 2}, options).permute({2, 1, 0})}) {
    const std::vector<at::Tensor> inputs = {x, grad, weight},
                                  dense = {x.clone(at::MemoryFormat::Contiguous), grad, weight};
    const auto got = residual_norm_and_gradients(inputs, {}, grad),
               expected = residual_norm_and_gradients(dense, at::zeros_like(grad), grad),
               again = residual_norm_and_gradients(dense, {}, grad);
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_LT(relative_error(got[i], expected[i]), 2e-2) << i;
      EXPECT_TRUE(at::equal(again[i], expected[i])) << i;  // and in every run
    }
  }
  const auto leaf = odd.detach().clone().requires_grad_();
  const auto sum = kernels::residual_rms_norm(leaf, grad, weight, 1e-5).sum;
  EXPECT_TRUE(at::equal(torch::autograd::grad({sum}, {leaf}, {grad})[0], grad));
}

TEST_F(CudaDecoder, RopeHeadsAndTheirGradient) {
  for (const auto type : kEveryType)
    for (const auto [heads, kv_heads, size, batch, tokens] :
         {std::array{4, 2, 6, 2, 5}, std::array{1, 1, 2, 1, 1}, std::array{3, 3, 64, 2, 77},
          std::array{8, 2, 128, 3, 1}, std::array{5, 1, 24, 1, 3}, std::array{2, 1, 16, 0, 4},
          std::array{3, 1, 32, 600, 65}}) {
      const auto angle_TF = at::rand({tokens, size / 2}).mul(6.28);
      const auto cos = angle_TF.cos(), sin = angle_TF.sin();
      const auto qkv = at::randn({batch, tokens, (heads + 2 * kv_heads) * size}).to(type);
      const std::string where = case_name(type, {heads, kv_heads, size, batch, tokens});
      const auto leaf = qkv.to(device_).requires_grad_();
      const auto [q, k, v] = kernels::rope_heads(leaf, cos.to(device_), sin.to(device_), {heads, kv_heads});
      const auto [ref_q, ref_k, ref_v] =
          kernels::rope_heads_ref::forward(qkv.to(at::kDouble), cos, sin, heads, kv_heads);
      EXPECT_LT(relative_error(q, ref_q), cuda_tolerance(type)) << where;
      EXPECT_LT(relative_error(k, ref_k), cuda_tolerance(type)) << where;
      EXPECT_TRUE(at::equal(v.detach().cpu().to(at::kDouble), ref_v)) << where;
      EXPECT_EQ(q.stride(-1), 1);
      // Gradients as attention gives them, dense ones, and such as repeat themselves.
      const auto grad_q = at::randn({batch, tokens, heads, size}).to(type).transpose(1, 2),
                 grad_k = at::randn({batch, kv_heads, tokens, size}).to(type),
                 grad_v = at::randn({batch, 1, tokens, 1}).to(type).expand({batch, kv_heads, tokens, size});
      const auto grad = torch::autograd::grad(
          {q, k, v}, {leaf}, {grad_q.to(device_), grad_k.to(device_), grad_v.to(device_)})[0];
      const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
      EXPECT_LT(relative_error(grad, kernels::rope_heads_ref::backward(wide(grad_q), wide(grad_k),
                                                                       wide(grad_v), cos, sin)),
                cuda_tolerance(type))
          << where;
    }
}

TEST_F(CudaDecoder, RopeHeadsAreKeptWhereACacheWantsThem) {
  for (const auto type : kEveryType)
    for (const auto [heads, kv_heads, size] :
         {std::array{4, 2, 64}, std::array{3, 1, 6}, std::array{2, 2, 128}})
      for (const auto kept : {type, at::kFloat}) {
        const auto options = at::TensorOptions(device_);
        const auto angle_TF = at::rand({37, size / 2}, options);
        const auto qkv = at::randn({3, 37, (heads + 2 * kv_heads) * size}, options).to(type);
        const auto room = at::zeros({2, 3, kv_heads, 50, size}, options.dtype(kept));
        const auto keys = room[0].narrow(2, 11, 37), values = room[1].narrow(2, 11, 37);
        const kernels::HeadLayout layout = {heads, kv_heads};
        const auto [q, k, v] =
            kernels::rope_heads_kept(qkv, angle_TF.cos(), angle_TF.sin(), layout, keys, values);
        const auto expected = kernels::rope_heads(qkv, angle_TF.cos(), angle_TF.sin(), layout);
        const std::string where = case_name(type, {heads, kv_heads, size});
        EXPECT_TRUE(at::equal(q, std::get<0>(expected)) && at::equal(k, std::get<1>(expected)) &&
                    at::equal(v, std::get<2>(expected)))
            << where;
        EXPECT_TRUE(at::equal(keys, k.to(kept)) && at::equal(values, v.to(kept))) << where;
        EXPECT_EQ(room.narrow(3, 0, 11).abs().sum().item<double>() +
                      room.narrow(3, 48, 2).abs().sum().item<double>(),
                  0)
            << where;
      }
}

TEST_F(CudaDecoder, AttentionOfRopedHeadsKeepsEachTokensHeadsTogether) {
  const auto options = at::TensorOptions(device_).dtype(at::kBFloat16);
  const auto angle_TF = at::rand({96, 32}, options.dtype(at::kFloat));
  for (const int64_t kv_heads : {4, 2}) {
    const auto qkv = at::randn({2, 96, (4 + 2 * kv_heads) * 64}, options).requires_grad_();
    const auto [q, k, v] = kernels::rope_heads(qkv, angle_TF.cos(), angle_TF.sin(), {4, kv_heads});
    const auto y = kernels::attention(q, k, v, {}, true);
    EXPECT_TRUE(y.transpose(1, 2).is_contiguous()) << kv_heads;
    const auto dense = kernels::attention(q.contiguous(), k.contiguous(), v.contiguous(), {}, true);
    EXPECT_LT(relative_error(y, dense), 1e-2) << kv_heads;
    const auto grad = at::randn_like(y);
    const auto got = torch::autograd::grad({y}, {qkv}, {grad}, /*retain_graph=*/true)[0],
               expected = torch::autograd::grad({dense}, {qkv}, {grad})[0];
    EXPECT_LT(relative_error(got, expected), 2e-2) << kv_heads;
  }
}

}  // namespace
}  // namespace fathom::cuda_decoder_test
