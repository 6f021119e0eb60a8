// Attention of counted rows with as many heads of keys as of queries, which cuDNN takes on Hopper.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/counted_gradients.h"
#include "kernels/counted_rows.h"

namespace fathom::ragged_attention_test {
namespace {

using kernels::CountedRows;
using testing::relative_error;

/// What attention and its backward pass made of rows in use.
std::vector<at::Tensor> attended(const at::Tensor& qkv, const at::Tensor& grad, const at::Tensor& active,
                                 int64_t heads) {
  auto counts = at::zeros({3}, qkv.options().dtype(at::kDouble));
  const CountedRows rows = kernels::chosen_rows({.active_BT = active.to(qkv.device())}, &counts).first;
  const kernels::HeadLayout layout = {heads, heads};
  const auto [y, sums] = kernels::counted_attention(qkv, layout, rows);
  const auto grads = kernels::counted_attention_backward(grad, qkv, y, sums, layout, rows);
  const int64_t used = rows.start_S1[-1].item<int64_t>();
  std::vector<at::Tensor> made;
  for (const at::Tensor& x : {y, grads.q, grads.k, grads.v})
    made.push_back(x.narrow(0, 0, used).flatten(1).cpu());
  return made;
}

class CudaRaggedAttention : public cuda_test::CudaKernels {};

/// Sequences without a row, with one, and around tiles; memory behind the rows in use holds no numbers.
TEST_F(CudaRaggedAttention, IsThatOfEachSequence) {
  at::manual_seed(61);
  constexpr int64_t kTokens = 300;
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{0, 1, 127, 300}, {128, 129, 0, 64}, {300}, {17, 0, 0}, {0, 0}})
    for (const int64_t size : {64, 128, 32})
      for (const auto type : {at::kBFloat16, at::kHalf}) {
        const int64_t heads = 3, sequences = static_cast<int64_t>(lengths.size());
        auto active = at::zeros({sequences, kTokens}, at::kBool);
        int64_t used = 0;
        for (int64_t s = 0; s < sequences; used += lengths[static_cast<size_t>(s)], ++s)
          active[s].narrow(0, 0, lengths[static_cast<size_t>(s)]).fill_(true);
        auto qkv = at::randn({sequences * kTokens, 3 * heads * size}).to(type),
             grad = at::randn({sequences * kTokens, heads * size}).to(type);
        const auto expected = attended(qkv.to(at::kDouble), grad.to(at::kDouble), active, heads);
        for (at::Tensor x : {qkv, grad})
          x.narrow(0, used, x.size(0) - used).fill_(std::numeric_limits<double>::quiet_NaN());
        const auto got = attended(qkv.to(device_), grad.to(device_), active, heads);
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_LT(relative_error(got[i], expected[i]), type == at::kHalf ? 5e-3 : 3e-2)
              << c10::toString(type) << ", heads of " << size << ", lengths " << at::IntArrayRef(lengths)
              << ", part " << i;
      }
}

}  // namespace
}  // namespace fathom::ragged_attention_test
