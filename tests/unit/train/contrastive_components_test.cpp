// What a recipe may add to the contrastive objective: region scores, adapters, reversal, consistency, hard
// negatives, centres.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "contrastive_fixture.h"
#include "nn/temperature.h"

namespace fathom::testing::contrastive_components_test {
namespace {

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
  static StepResult run(const ModelParts& model, const ContrastiveConfig& config, int64_t size) {
    ContrastiveTask task({.model = make_model(config, model),
                          .config = config,
                          .num_tokens = 10,
                          .hard_negatives = full_bank(config)});
    return run_step(task, split_and_trim(ragged_batch(), size));
  }
};

TEST_P(Components, AccumulationEqualsTheWholeBatch) {
  const Component& component = GetParam();
  const StepResult whole = run(component.model, component.config, 12);
  for (const int64_t size : {3, 5}) {
    const StepResult parts = run(component.model, component.config, size);
    expect_equal(parts, whole, 1e-9);
    EXPECT_EQ(parts.last_backward_calls, 1);
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

/// Step `number` of 100.
StepContext step_context(int64_t number, Collective& collective) {
  return {.step = number,
          .progress = at::full({}, static_cast<double>(number) / 100, at::kDouble),
          .collective = collective};
}

/// The definitions on the task's own embeddings.
class ComponentValues : public ::testing::Test {
 protected:
  static double loss_of(ContrastiveTask& task, const Batch& batch, int64_t step = 30) {
    const auto collective = make_solo_collective();
    return task.loss({batch, {}}, step_context(step, *collective)).item<double>();
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
    EXPECT_TRUE(task.launches_alike());
    const auto collective = make_solo_collective();
    task.loss({ragged_batch(), {}}, step_context(step, *collective)).backward();
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

/// Elements of the weights of a task's products whose names begin like this.
double product_weights(const ContrastiveTask& task, const std::string& prefix) {
  int64_t sum = 0;
  for (const auto& [name, parameter] : named(task))
    if (name.starts_with(prefix) && parameter.dim() == 2) sum += parameter.numel();
  return static_cast<double>(sum);
}

TEST(ContrastiveFlops, CountTheHeadsOfTrainingAlone) {
  const auto make_task = [](const ContrastiveConfig& config) {
    return ContrastiveTask({.model = make_model(config),
                            .config = config,
                            .num_tokens = 10,
                            .captions_per_image = 3,
                            .views_per_image = 2});
  };
  const double towers = make_task({}).flops_per_sample();
  const auto image = static_cast<double>(forward_flops(tiny(false), 1, 0)),
             pair = static_cast<double>(forward_flops(tiny(false), 1, 10));
  EXPECT_EQ(towers, 3 * (2 * image + 3 * (pair - image)));
  const auto expect_head = [&](const ContrastiveConfig& config, const std::string& name, double rows) {
    const ContrastiveTask task = make_task(config);
    EXPECT_GT(product_weights(task, name), 0) << name;
    EXPECT_EQ(task.flops_per_sample() - towers, 3 * 2 * rows * product_weights(task, name)) << name;
  };
  expect_head({.view_weight = 0.2}, "view_head.", 2);
  expect_head({.word_weight = 3}, "word_head.", 2);
  expect_head({.localization = 0.3, .localization_pairs = 7}, "location_head.", 2 * 7);
  expect_head({.reversal = 0.1}, "discriminator.", 2 + 3);
}

TEST_F(ComponentValues, TheBankHoldsTheTasksOwnTexts) {
  const torch::NoGradGuard no_grad;
  const ContrastiveConfig config{.hard_negatives = {.refresh = 1}};
  const auto bank = std::make_shared<HardNegatives>(HardNegatives::Setup{.config = config.hard_negatives,
                                                                         .num_samples = 12,
                                                                         .batch_size = 12,
                                                                         .dim = 12,
                                                                         .options = at::kDouble});
  ContrastiveTask task({.model = make_model(config), .config = config, .hard_negatives = bank});
  Batch batch = ragged_batch();
  batch.index_B = torch::arange(12);
  loss_of(task, batch);
  const auto collective = make_solo_collective();
  task.after_step({.collective = *collective});
  const at::Tensor text_SD = make_model(config)->encode_text(batch.tokens_BT, batch.length_B).whole_ND;
  EXPECT_TRUE(at::allclose(bank->bank(), unit_length(text_SD - text_SD.mean(0, /*keepdim=*/true))));
}

}  // namespace
}  // namespace fathom::testing::contrastive_components_test
