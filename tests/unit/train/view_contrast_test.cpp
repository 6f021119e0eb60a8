// The contrast among views of one picture, against its definition.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "contrastive_fixture.h"

namespace fathom::testing::view_contrast_test {
namespace {

/// Two views of each of four pictures, of which the last two are one picture.
class ViewContrast : public ::testing::Test {
 protected:
  static constexpr double kWeight = 0.7, kTemperature = 0.3;

  ViewContrast() {
    torch::manual_seed(8);
    batch_.index_B = torch::tensor({0, 1, 2, 2}, at::kLong);
    batch_.image_BCHW = torch::randn({8, 3, 16, 16}, at::kDouble);
    batch_.tokens_BT = torch::randint(0, 50, {4, 10}, at::kLong);
    batch_.length_B = torch::full({4}, 10, at::kLong);
  }

  struct Pass {
    double loss = 0;
    std::map<std::string, at::Tensor> parameters;
    at::Tensor gradient(const std::string& name) const { return parameters.at(name).grad(); }
  };
  Pass run(double weight) const {
    const ContrastiveConfig config{.view_weight = weight, .self_temperature = kTemperature};
    ContrastiveTask task({.model = make_model(config), .config = config, .views_per_image = 2, .seed = 6});
    const auto collective = make_solo_collective();
    const at::Tensor loss = task.loss({batch_, {}}, {.collective = *collective});
    loss.backward();
    Pass pass{.loss = loss.item<double>()};
    for (const auto& [name, parameter] : task.parameters()) pass.parameters[name] = parameter;
    return pass;
  }
  /// The definition, one pair of views after another.
  double by_hand(const Pass& pass) const {
    const at::NoGradGuard no_grad;
    const auto weight = [&](const char* name) { return pass.parameters.at(name); };
    const at::Tensor pooled_VD = make_model({})->vision()->forward(batch_.image_BCHW, {});
    const at::Tensor hidden_VD = at::gelu(
        at::addmm(weight("view_head.hidden.bias"), pooled_VD, weight("view_head.hidden.weight").t()));
    const at::Tensor view_VD =
        at::addmm(weight("view_head.out.bias"), hidden_VD, weight("view_head.out.weight").t());
    const int64_t owner[] = {0, 0, 1, 1, 2, 2, 2, 2};
    const auto likeness = [&](int64_t i, int64_t j) {  // exp(cosine ÷ temperature)
      const at::Tensor a = view_VD[i], b = view_VD[j];
      return std::exp((a.dot(b) / a.norm() / b.norm()).item<double>() / kTemperature);
    };
    double sum = 0;
    for (int64_t i = 0; i < 8; ++i) {
      double others = 0, of_row = 0;
      int positives = 0;
      for (int64_t j = 0; j < 8; ++j) others += owner[j] == owner[i] ? 0 : likeness(i, j);
      for (int64_t j = 0; j < 8; ++j) {
        if (j == i || owner[j] != owner[i]) continue;
        of_row -= std::log(likeness(i, j) / (likeness(i, j) + others));
        ++positives;
      }
      sum += of_row / positives;
    }
    return sum / 8;
  }

  Batch batch_;
};

TEST_F(ViewContrast, AddsItsWeightTimesTheDefinition) {
  const Pass without = run(0), with = run(kWeight);
  const double expected = by_hand(with);
  EXPECT_GT(expected, 0.1);
  EXPECT_NEAR(with.loss - without.loss, kWeight * expected, 1e-9);
}

TEST_F(ViewContrast, TeachesTheVisionTowerAndNotTheText) {
  const Pass without = run(0), with = run(kWeight);
  for (const auto& [name, parameter] : without.parameters) {
    if (!parameter.grad().defined()) continue;
    const double difference = (with.gradient(name) - parameter.grad()).abs().max().item<double>();
    if (name.starts_with("vision."))
      EXPECT_GT(difference, 1e-9) << name;
    else
      EXPECT_LT(difference, 1e-12) << name;
  }
  EXPECT_GT(with.gradient("view_head.out.weight").abs().max().item<double>(), 1e-6);
}

/// Two captions of each picture, of which one is another's word for word.
TEST_F(ViewContrast, CaptionsOfOnePictureBelongTogetherByTheirWeight) {
  batch_.image_BCHW = batch_.image_BCHW.narrow(0, 0, 4);
  batch_.tokens_BT = torch::randint(0, 50, {8, 10}, at::kLong);
  batch_.tokens_BT[3].copy_(batch_.tokens_BT[0]);
  batch_.length_B = torch::full({8}, 10, at::kLong);
  const auto loss = [&](double weight, bool match) {
    const ContrastiveConfig config{
        .match_equal_captions = match, .caption_weight = weight, .self_temperature = kTemperature};
    ContrastiveTask task({.model = make_model(config), .config = config, .captions_per_image = 2, .seed = 6});
    const auto collective = make_solo_collective();
    return task.loss({batch_, {}}, {.collective = *collective}).item<double>();
  };
  const at::NoGradGuard no_grad;
  const at::Tensor text_MD = make_model({})->encode_text(batch_.tokens_BT, batch_.length_B).whole_ND;
  const int64_t owner[] = {0, 0, 1, 1, 2, 2, 2, 2};
  for (const bool match : {true, false}) {
    const auto is_negative = [&](int64_t i, int64_t j) {
      return owner[i] != owner[j] && !(match && std::min(i, j) == 0 && std::max(i, j) == 3);
    };
    double sum = 0;
    for (int64_t i = 0; i < 8; ++i) {
      const auto likeness = [&](int64_t j) {
        return std::exp(text_MD[i].dot(text_MD[j]).item<double>() / kTemperature);
      };
      double others = 0, of_row = 0;
      int positives = 0;
      for (int64_t j = 0; j < 8; ++j) others += is_negative(i, j) ? likeness(j) : 0;
      for (int64_t j = 0; j < 8; ++j) {
        if (j == i || owner[j] != owner[i]) continue;
        of_row -= std::log(likeness(j) / (likeness(j) + others));
        ++positives;
      }
      sum += of_row / positives / 8;
    }
    EXPECT_GT(sum, 0.1);
    EXPECT_NEAR(loss(kWeight, match) - loss(0, match), kWeight * sum, 1e-9) << match;
  }
}

TEST_F(ViewContrast, IsAbsentAtWeightZero) {
  for (const auto& [name, parameter] : run(0).parameters)
    EXPECT_FALSE(name.starts_with("view_head.")) << name;
  EXPECT_TRUE(run(kWeight).parameters.contains("view_head.hidden.weight"));
}

}  // namespace
}  // namespace fathom::testing::view_contrast_test
