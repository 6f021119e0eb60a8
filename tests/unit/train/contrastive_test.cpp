#include "train/task/contrastive.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "nn/init.h"
#include "nn/temperature.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

DualTowerConfig tiny(bool logit_bias) {
  DualTowerConfig config;
  config.vision = {.image_size = 16,
                   .patch_size = 2,
                   .dim = 8,
                   .depths = {1, 1},
                   .heads = {2, 2},
                   .window = 4,
                   .drop_path = 0.2};
  config.text = {.vocab_size = 50, .dim = 16, .layers = 2, .heads = 2, .max_positions = 12, .dropout = 0.1};
  config.embed_dim = 12;
  config.logit_bias = logit_bias;
  return config;
}

struct ModelParts {
  RegionScore region = RegionScore::kNone;
  int64_t adapters = 0;
  bool centred = false;
};

DualTower make_model(const ContrastiveConfig& config, const ModelParts& parts = {}) {
  DualTowerConfig shape = tiny(config.loss == ContrastiveLoss::kSigmoid);
  shape.region = parts.region;
  shape.adapters = parts.adapters;
  shape.centred = parts.centred;
  DualTower model(shape);
  init_parameters(*model, 1);
  model->to(at::kDouble);
  if (parts.centred) {  // which begin at the origin
    const torch::NoGradGuard no_grad;
    torch::manual_seed(3);
    for (at::Tensor& centre_D : model->centres()) centre_D.normal_(0, 0.1);
  }
  if (parts.adapters > 0) {  // which begin as the identity
    const torch::NoGradGuard no_grad;
    torch::manual_seed(2);
    for (auto& entry : model->named_parameters())
      if (entry.key().find("adapter.up.weight") != std::string::npos) entry.value().normal_();
  }
  return model;
}

ContrastiveTask make_task(const ContrastiveConfig& config) {
  return ContrastiveTask({.model = make_model(config), .config = config, .num_tokens = 10});
}

/// Twelve pairs; the last two share a picture, two others a caption.
Batch make_batch() {
  torch::manual_seed(4);
  Batch batch;
  batch.index_B = torch::arange(12);
  batch.index_B[11] = 10;
  batch.image_BCHW = torch::randn({12, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, 50, {12, 10}, at::kLong);
  batch.tokens_BT[3].copy_(batch.tokens_BT[7]);
  batch.length_B = torch::full({12}, 10, at::kLong);
  return batch;
}

std::vector<MicroBatch> split(const Batch& batch, int64_t size) {
  std::vector<MicroBatch> parts;
  for (int64_t start = 0; start < batch.size(); start += size) {
    Batch part = slice_batch(batch, start, std::min(size, batch.size() - start));
    const at::Tensor key_B = make_sample_keys(part.index_B, 5, 6);
    parts.push_back({std::move(part), {.training = true, .key_B = key_B}});
  }
  return parts;
}

struct StepResult {
  double loss = 0;
  int last_backward_calls = 0;
  std::map<std::string, at::Tensor> gradients;
};

StepResult run_step(const ContrastiveConfig& config, int64_t micro_batch_size,
                    const std::vector<std::string>& freeze = {}) {
  ContrastiveTask task = make_task(config);
  freeze_parameters(task.parameters(), freeze);
  const auto collective = make_solo_collective();
  StepResult result;
  const StepContext step{.global_samples = 12, .collective = *collective, .expect_last_backward = [&] {
                           ++result.last_backward_calls;
                         }};
  const std::vector<MicroBatch> parts = split(make_batch(), micro_batch_size);
  result.loss = task.forward_backward(parts, step).item<double>();
  for (const auto& [name, parameter] : task.parameters())
    if (parameter.grad().defined()) result.gradients[name] = parameter.grad();
  return result;
}

class Accumulation : public ::testing::TestWithParam<ContrastiveLoss> {};

TEST_P(Accumulation, EqualsTheWholeBatchWithDropoutOn) {
  const ContrastiveConfig config{.loss = GetParam(), .label_smoothing = 0.05};
  const StepResult whole = run_step(config, 12);
  for (const int64_t size : {3, 5}) {
    const StepResult parts = run_step(config, size);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    EXPECT_EQ(parts.last_backward_calls, 1);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
  }
  EXPECT_TRUE(whole.gradients.contains("log_scale"));
}

TEST_P(Accumulation, EqualsTheWholeBatchWithFrozenTowers) {
  const ContrastiveConfig config{.loss = GetParam()};
  const std::vector<std::string> vision = {"vision.*", "image_projection.*"},
                                 text = {"text.*", "text_projection.*"};
  std::vector<std::string> both = vision;
  both.insert(both.end(), text.begin(), text.end());
  for (const std::vector<std::string>& freeze : {vision, text, both}) {
    const StepResult whole = run_step(config, 12, freeze), parts = run_step(config, 5, freeze);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    EXPECT_EQ(parts.last_backward_calls, 1);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
    EXPECT_EQ(whole.gradients.contains("text_projection.weight"), freeze == vision);
    EXPECT_EQ(whole.gradients.contains("image_projection.weight"), freeze == text);
    EXPECT_TRUE(whole.gradients.contains("log_scale"));
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, Accumulation,
                         ::testing::Values(ContrastiveLoss::kInfoNce, ContrastiveLoss::kSigmoid));

TEST(ContrastiveTask, EqualCaptionsAreNoNegativesWhenAskedFor) {
  const double matched = run_step({.match_equal_captions = true}, 12).loss;
  const double unmatched = run_step({.match_equal_captions = false}, 12).loss;
  EXPECT_GT(std::abs(matched - unmatched), 1e-4);
}

TEST(ContrastiveTask, SeveralCaptionsAnImageAreAllPositives) {
  ContrastiveTask task = make_task({});
  const auto collective = make_solo_collective();
  const StepContext step{.collective = *collective, .expect_last_backward = [] {}};
  Batch batch = make_batch();
  const double one = task.loss({batch, {}}, step).item<double>();
  batch.tokens_BT = batch.tokens_BT.repeat_interleave(2, 0);
  batch.length_B = batch.length_B.repeat_interleave(2, 0);
  const double twice = task.loss({batch, {}}, step).item<double>();
  // The same caption twice: as many negatives again for each image, nothing new for each text.
  EXPECT_GT(twice, one);
  EXPECT_LT(twice, one + 0.5 * std::log(2.0) + 1e-9);
}

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
    const ContrastiveConfig config{.self_weight = weight, .self_temperature = kTemperature};
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

TEST_F(ViewContrast, IsAbsentAtWeightZero) {
  for (const auto& [name, parameter] : run(0).parameters)
    EXPECT_FALSE(name.starts_with("view_head.")) << name;
  EXPECT_TRUE(run(kWeight).parameters.contains("view_head.hidden.weight"));
}

/// A batch with texts of unequal length, some of which are padded differently in each micro-batch.
Batch ragged_batch() {
  Batch batch = make_batch();
  batch.length_B = torch::tensor({10, 4, 7, 9, 2, 10, 3, 9, 5, 6, 1, 8}, at::kLong);
  batch.length_B[7] = batch.length_B[3];
  return batch;
}

std::vector<MicroBatch> split_and_trim(const Batch& batch, int64_t size) {
  std::vector<MicroBatch> parts = split(batch, size);
  for (MicroBatch& part : parts)
    part.batch.tokens_BT =
        part.batch.tokens_BT.slice(1, 0, part.batch.length_B.max().item<int64_t>()).contiguous();
  return parts;
}

struct Component {
  const char* name;
  ModelParts model;
  ContrastiveConfig config;
};

std::shared_ptr<HardNegatives> full_bank(const ContrastiveConfig& config) {
  if (config.hard_negatives.refresh == 0) return nullptr;
  auto bank = std::make_shared<HardNegatives>(HardNegatives::Setup{.config = config.hard_negatives,
                                                                   .num_samples = 12,
                                                                   .batch_size = 12,
                                                                   .dim = 12,
                                                                   .options = at::kDouble});
  torch::manual_seed(9);
  bank->observe(torch::arange(12), torch::randn({12, 12}, at::kDouble));
  const auto collective = make_solo_collective();
  bank->after_step({.collective = *collective});
  return bank;
}

class Components : public ::testing::TestWithParam<Component> {
 protected:
  static StepResult run(const ModelParts& model, const ContrastiveConfig& config, int64_t size,
                        int64_t step_number = 30) {
    ContrastiveTask task({.model = make_model(config, model),
                          .config = config,
                          .num_tokens = 10,
                          .hard_negatives = full_bank(config)});
    const auto collective = make_solo_collective();
    StepResult result;
    const StepContext step{.step = step_number,
                           .total_steps = 100,
                           .global_samples = 12,
                           .collective = *collective,
                           .expect_last_backward = [&] { ++result.last_backward_calls; }};
    result.loss = task.forward_backward(split_and_trim(ragged_batch(), size), step).item<double>();
    for (const auto& [name, parameter] : task.parameters())
      if (parameter.grad().defined()) result.gradients[name] = parameter.grad();
    return result;
  }
};

TEST_P(Components, AccumulationEqualsTheWholeBatch) {
  const Component& component = GetParam();
  const StepResult whole = run(component.model, component.config, 12);
  for (const int64_t size : {3, 5}) {
    const StepResult parts = run(component.model, component.config, size);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    EXPECT_EQ(parts.last_backward_calls, 1);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
  }
}

TEST_P(Components, ChangeWhatTheTowersLearn) {
  const Component& component = GetParam();
  ContrastiveConfig plain_config;
  plain_config.loss = component.config.loss;
  const StepResult plain = run({}, plain_config, 12), with = run(component.model, component.config, 12);
  for (const char* name : {"vision.patch_embed.weight", "text.embedding"})
    EXPECT_GT((plain.gradients.at(name) - with.gradients.at(name)).abs().max().item<double>(), 1e-7) << name;
}

INSTANTIATE_TEST_SUITE_P(
    All, Components,
    ::testing::Values(
        Component{"attention", {.region = RegionScore::kAttention}, {}},
        Component{"late", {.region = RegionScore::kLate}, {}},
        Component{"late_sigmoid", {.region = RegionScore::kLate}, {.loss = ContrastiveLoss::kSigmoid}},
        Component{"adapters", {.region = RegionScore::kAttention, .adapters = 4}, {}},
        Component{"reversal", {}, {.reversal = 0.5}}, Component{"consistency", {}, {.consistency = 0.7}},
        Component{"threshold", {}, {.hard_negatives = {.refresh = 1, .max_similarity = 0.2}}},
        Component{"weights", {}, {.hard_negatives = {.refresh = 1, .sharpness = 3}}},
        Component{"all",
                  {.region = RegionScore::kAttention, .adapters = 4},
                  {.reversal = 0.5,
                   .consistency = 0.7,
                   .hard_negatives = {.refresh = 1, .max_similarity = 0.2, .sharpness = 3}}}),
    [](const auto& info) { return std::string(info.param.name); });

/// The definitions on the task's own embeddings.
class ComponentValues : public ::testing::Test {
 protected:
  static double loss_of(ContrastiveTask& task, const Batch& batch, int64_t step = 30) {
    const auto collective = make_solo_collective();
    return task.loss({batch, {}}, {.step = step, .total_steps = 100, .collective = *collective})
        .item<double>();
  }
  static double loss(const ContrastiveConfig& config, const ModelParts& parts, int64_t step = 30) {
    ContrastiveTask task(
        {.model = make_model(config, parts), .config = config, .hard_negatives = full_bank(config)});
    return loss_of(task, ragged_batch(), step);
  }
};

TEST_F(ComponentValues, RegionLossIsInfoNceOfScoresAtTheirTemperature) {
  const torch::NoGradGuard no_grad;
  for (const RegionScore kind : {RegionScore::kAttention, RegionScore::kLate}) {
    const ModelParts parts{.region = kind};
    const double without = loss({.region_weight = 0}, parts), with = loss({.region_weight = 0.3}, parts);
    DualTower model = make_model({}, parts);
    const Batch batch = ragged_batch();
    const at::Tensor score = pair_scores(model->encode_text(batch.tokens_BT, batch.length_B),
                                         model->encode_image(batch.image_BCHW));
    double expected = 0;
    const auto exp_logit = [&](int64_t text, int64_t image) {
      return std::exp(score[text][image].item<double>() / 0.07);
    };
    const auto one_picture = [](int64_t a, int64_t b) { return a == b || (a >= 10 && b >= 10); };
    const auto same_caption = [](int64_t a, int64_t b) { return (a == 3 && b == 7) || (a == 7 && b == 3); };
    for (const bool by_text : {true, false})
      for (int64_t i = 0; i < 12; ++i) {
        double negatives = 0, of_row = 0;
        int positives = 0;
        const auto value = [&](int64_t j) { return by_text ? exp_logit(i, j) : exp_logit(j, i); };
        for (int64_t j = 0; j < 12; ++j)
          if (!one_picture(i, j) && !same_caption(i, j)) negatives += value(j);
        for (int64_t j = 0; j < 12; ++j) {
          if (!one_picture(i, j)) continue;
          of_row -= std::log(value(j) / (value(j) + negatives));
          ++positives;
        }
        expected += 0.5 * of_row / positives / 12;
      }
    EXPECT_NEAR(with - without, 0.3 * expected, 1e-6);  // 1/0.07 is kept in float32
  }
}

TEST_F(ComponentValues, ReversalGrowsWithProgressAndTurnsOnlyTheTowersRound) {
  const auto gradients = [&](int64_t step) {
    const ContrastiveConfig config{.reversal = 1};
    ContrastiveTask task({.model = make_model(config), .config = config, .seed = 6});
    const auto collective = make_solo_collective();
    task.loss({ragged_batch(), {}}, {.step = step, .total_steps = 100, .collective = *collective}).backward();
    std::map<std::string, at::Tensor> found;
    for (const auto& [name, parameter] : task.parameters()) found[name] = parameter.grad();
    return found;
  };
  const auto start = gradients(0), later = gradients(50), end = gradients(100);
  // The discriminator learns alike at any strength; at the start it does not reach the towers.
  EXPECT_TRUE(at::allclose(start.at("discriminator.out.weight"), end.at("discriminator.out.weight")));
  EXPECT_GT(start.at("discriminator.out.weight").abs().max().item<double>(), 1e-4);
  const at::Tensor first = later.at("text_projection.weight") - start.at("text_projection.weight");
  const at::Tensor second = end.at("text_projection.weight") - start.at("text_projection.weight");
  EXPECT_GT(first.abs().max().item<double>(), 1e-6);
  EXPECT_TRUE(at::allclose(first / (2 / (1 + std::exp(-5.0)) - 1), second / (2 / (1 + std::exp(-10.0)) - 1),
                           1e-6, 1e-12));
}

TEST_F(ComponentValues, AModelIsUsedWithCentresThatAreMeasured) {
  const torch::NoGradGuard no_grad;
  DualTower model = make_model({}, {.centred = true});
  int measured = 0;
  double in_use = 0;
  ContrastiveTask task({.model = model,
                        .evaluate =
                            [&](const DualTower& used) {
                              in_use = used->centres()[0].sum().item<double>();
                              return Metrics{};
                            },
                        .measure_centres =
                            [&](const DualTower& as_it_is) {
                              ++measured;
                              std::vector<at::Tensor> found;
                              for (const at::Tensor& centre_D : as_it_is->centres())
                                found.push_back(at::full_like(centre_D, measured));
                              return found;
                            }});
  task.evaluate();
  EXPECT_EQ(in_use, 12);
  for (const at::Tensor& centre_D : model->centres())
    EXPECT_EQ(centre_D.abs().max().item<double>(), 0)
        << "training knows of none, whatever the model came with";
  task.evaluate();
  EXPECT_EQ(measured, 1) << "nothing has changed";
  const auto collective = make_solo_collective();
  task.after_step({.collective = *collective});
  task.evaluate();
  EXPECT_EQ(in_use, 24);
}

TEST_F(ComponentValues, ConsistencyIsTheDivergenceOfSimilarities) {
  const torch::NoGradGuard no_grad;
  const double difference = loss({.consistency = 0.4}, {}) - loss({}, {});
  DualTower model = make_model({});
  const Batch batch = ragged_batch();
  const at::Tensor image = model->encode_image(batch.image_BCHW).whole_ND;
  const at::Tensor text = model->encode_text(batch.tokens_BT, batch.length_B).whole_ND;
  double expected = 0;
  for (int64_t i = 0; i < 12; ++i) {
    std::vector<int64_t> others;
    for (int64_t j = 0; j < 12; ++j)
      if (j != i && !(i >= 10 && j >= 10)) others.push_back(j);
    const at::Tensor index = torch::tensor(others, at::kLong);
    const auto spread = [&](const at::Tensor& x) {
      return (at::mv(x, x[i]).index_select(0, index) / 0.07).softmax(0);
    };
    const at::Tensor p = spread(image), q = spread(text);
    expected += (0.5 * ((p * (p / q).log()).sum() + (q * (q / p).log()).sum())).item<double>();
  }
  EXPECT_NEAR(difference, 0.4 * expected / 12, 1e-6);  // 1/0.07 is kept in float32
}

TEST_F(ComponentValues, AdaptersActOnBothTowers) {
  const torch::NoGradGuard no_grad;
  DualTower plain = make_model({}), adapted = make_model({}, {.adapters = 4});
  const Batch batch = ragged_batch();
  EXPECT_GT((plain->embed_image(batch.image_BCHW) - adapted->embed_image(batch.image_BCHW))
                .abs()
                .max()
                .item<double>(),
            1e-2);
  EXPECT_GT((plain->embed_text(batch.tokens_BT, batch.length_B) -
             adapted->embed_text(batch.tokens_BT, batch.length_B))
                .abs()
                .max()
                .item<double>(),
            1e-2);
}

}  // namespace
}  // namespace fathom
