// Norms and all their gradients have the same bits in every run: sums over rows, which many threads share,
// are taken in an order that the sizes alone decide.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cuda_fixture.h"
#include "kernels/layer_norm.h"
#include "kernels/merged_layer_norm.h"
#include "kernels/residual_layer_norm.h"
#include "kernels/residual_rms_norm.h"
#include "kernels/rms_norm.h"

namespace fathom::norm_runs_test {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr double kEps = 1e-5;

/// What norms take. x, branch: [B, height, width, D]; scale_B: of each sample's branch.
struct Operands {
  at::Tensor x, branch, weight, bias, scale_B;
};

struct NormOperation {
  const char* name;
  Tensors (*outputs)(const Operands&);
  int64_t merges = 1;  ///< rows that become one
};

const NormOperation kOperations[] = {
    {"rms_norm",
     [](const Operands& of) {
       return Tensors{kernels::rms_norm(of.x, of.weight.to(of.x.scalar_type()), kEps)};
     }},
    {"residual_rms_norm",
     [](const Operands& of) {
       const auto [sum, y] = kernels::residual_rms_norm(of.x, of.branch, of.weight, kEps);
       return Tensors{sum, y};
     }},
    {"layer_norm",
     [](const Operands& of) { return Tensors{kernels::layer_norm(of.x, of.weight, of.bias, kEps)}; }},
    {"residual_layer_norm",
     [](const Operands& of) {
       const auto [sum, y] = kernels::residual_layer_norm(of.x, {of.branch}, of.weight, of.bias, kEps);
       return Tensors{sum, y};
     }},
    {"residual_layer_norm_by_sample",
     [](const Operands& of) {
       const auto [sum, y] =
           kernels::residual_layer_norm(of.x, {of.branch, of.scale_B}, of.weight, of.bias, kEps);
       return Tensors{sum, y};
     }},
    {"merged_layer_norm",
     [](const Operands& of) {
       return Tensors{kernels::merged_layer_norm(of.x, {of.branch, of.scale_B}, of.weight, of.bias, kEps)};
     },
     4}};

/// Outputs, and gradients of whatever the operation takes.
Tensors run(const NormOperation& operation, const Operands& given) {
  Operands of = given;
  const std::vector<at::Tensor*> leaves = {&of.x, &of.branch, &of.weight, &of.bias};
  for (at::Tensor* leaf : leaves) *leaf = leaf->detach().clone().requires_grad_();
  Tensors found = operation.outputs(of);
  at::Tensor objective;
  for (const at::Tensor& y : found) {
    const at::Tensor slope = at::linspace(-1, 2, y.numel(), y.options().dtype(at::kFloat)).view(y.sizes());
    const at::Tensor part = (y.to(at::kFloat) * slope).sum();
    objective = objective.defined() ? objective + part : part;
  }
  objective.backward();
  for (at::Tensor& y : found) y = y.detach();
  for (const at::Tensor* leaf : leaves)
    if (leaf->grad().defined()) found.push_back(leaf->grad());
  return found;
}

void expect_same_bits(const NormOperation& operation, at::Device device, at::ScalarType type, int64_t dim) {
  const auto options = at::TensorOptions(device).dtype(type);
  const auto parameters = options.dtype(at::kFloat);
  const std::vector<int64_t> sizes = {12, 18, 22, dim};  // rows for more blocks than run at once
  const Operands given = {.x = at::randn(sizes, options) + 0.5,
                          .branch = at::randn(sizes, options),
                          .weight = at::rand({operation.merges * dim}, parameters) + 0.5,
                          .bias = at::randn({operation.merges * dim}, parameters),
                          .scale_B = at::rand({12}, options)};
  const Tensors first = run(operation, given);
  ASSERT_GE(first.size(), 3u) << "an output, and gradients of x and the weight";
  for (int again = 0; again < 3; ++again) {
    const Tensors found = run(operation, given);
    ASSERT_EQ(found.size(), first.size());
    for (size_t i = 0; i < first.size(); ++i)
      EXPECT_TRUE(at::equal(found[i], first[i]))
          << operation.name << " of " << c10::toString(type) << ", width " << dim << ", part " << i;
  }
}

std::string name_of(const ::testing::TestParamInfo<NormOperation>& info) {
  return info.param.name;
}

class NormRuns : public ::testing::TestWithParam<NormOperation> {};

TEST_P(NormRuns, GiveTheSameBits) {
  for (const auto type : {at::kFloat, at::kBFloat16}) expect_same_bits(GetParam(), at::kCPU, type, 96);
}

INSTANTIATE_TEST_SUITE_P(All, NormRuns, ::testing::ValuesIn(kOperations), name_of);

class CudaNormRuns : public cuda_test::CudaKernels, public ::testing::WithParamInterface<NormOperation> {};

/// Widths of one warp and of several, and one that LibTorch's kernels take.
TEST_P(CudaNormRuns, GiveTheSameBits) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const int64_t dim : {96, 512, 768, 33}) expect_same_bits(GetParam(), device_, type, dim);
}

INSTANTIATE_TEST_SUITE_P(All, CudaNormRuns, ::testing::ValuesIn(kOperations), name_of);

}  // namespace
}  // namespace fathom::norm_runs_test
