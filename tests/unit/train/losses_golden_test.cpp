// Losses and their gradients as open_clip and PyTorch compute them: tests/golden/loss_golden.py.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <map>
#include <string>

#include "base/json.h"
#include "formula_weights.h"
#include "nn/grad_reversal.h"
#include "train/losses/contrastive_losses.h"

namespace fathom::losses_golden_test {
namespace {

constexpr int64_t kPairs = 5, kWidth = 6;
constexpr double kTolerance = 1e-10;

at::Tensor numbers(const std::string& name, at::IntArrayRef shape) {
  return testing::formula_uniform(name, c10::multiply_integers(shape)).view(shape);
}

at::Tensor embeddings(const std::string& name) {
  const at::Tensor raw = numbers(name, {kPairs, kWidth});
  return (raw / raw.norm(2, {1}, /*keepdim=*/true)).requires_grad_();
}

at::Tensor scalar(double value) {
  return torch::full({}, value, at::kDouble).requires_grad_();
}

/// The loss and its gradients with respect to the leaves, which the golden file calls by the same names.
void expect_golden(const char* what, const at::Tensor& loss,
                   const std::map<std::string, at::Tensor>& leaves) {
  const Json golden = read_json_file(FATHOM_GOLDENS "/losses.json").at(what);
  EXPECT_NEAR(loss.item<double>(), golden.at("loss").as_double(), kTolerance);
  ASSERT_EQ(golden.size(), leaves.size() + 1);
  for (const auto& [name, leaf] : leaves) {
    constexpr bool kKeepGraph = true;
    const at::Tensor gradient = torch::autograd::grad({loss}, {leaf}, {}, kKeepGraph)[0].reshape(-1);
    const Json& expected = golden.at(name);
    ASSERT_EQ(static_cast<int64_t>(expected.size()), gradient.numel()) << name;
    for (int64_t i = 0; i < gradient.numel(); ++i)
      EXPECT_NEAR(gradient[i].item<double>(), expected.as_array()[static_cast<size_t>(i)].as_double(),
                  kTolerance)
          << name << ", element " << i;
  }
}

PairLabels diagonal() {
  const at::Tensor owner = torch::arange(kPairs);
  return label_pairs(owner, owner);
}

TEST(LossGoldens, InfoNceIsOpenClips) {
  const at::Tensor image = embeddings("image"), text = embeddings("text"), scale = scalar(14.3);
  const at::Tensor logits = scale * image.mm(text.t());
  const at::Tensor loss = (info_nce(logits, diagonal()) + info_nce(logits.t(), diagonal())) / (2 * kPairs);
  expect_golden("clip", loss, {{"image", image}, {"text", text}, {"scale", scale}});
}

TEST(LossGoldens, PairwiseSigmoidIsOpenClips) {
  const at::Tensor image = embeddings("image"), text = embeddings("text");
  const at::Tensor scale = scalar(10.0), bias = scalar(-9.5);
  const at::Tensor loss = pairwise_sigmoid(scale * image.mm(text.t()) + bias, diagonal()) / kPairs;
  expect_golden("siglip", loss, {{"image", image}, {"text", text}, {"scale", scale}, {"bias", bias}});
}

TEST(LossGoldens, GradientReversalIsPyTorchs) {
  const at::Tensor x = numbers("x", {kPairs, kWidth}).requires_grad_();
  const at::Tensor w = numbers("w", {kWidth, 1}).requires_grad_();
  const at::Tensor loss = at::softplus(-at::tanh(reverse_gradient(x, scalar(0.3)).mm(w))).mean();
  expect_golden("reversal", loss, {{"x", x}, {"w", w}});
}

}  // namespace
}  // namespace fathom::losses_golden_test
