// What is counted as density, and what is held at it.
#include "train/gate_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>

#include "distributed/collective.h"
#include "nn/init.h"

namespace fathom::gate_controller_test {
namespace {

constexpr int64_t kDim = 8;

/// A gate, and what it decides of a row.
struct Decided {
  std::string name;
  int64_t weights, places, active;
};

NamedGate make_gate(const Decided& decided, int64_t layer) {
  return {decided.name, TokenGate(TokenGateOptions{.config = {.kind = GateKind::kRandom, .density = 0.3},
                                                   .dim = kDim,
                                                   .layer = layer,
                                                   .places = decided.places,
                                                   .gated_weights = decided.weights})};
}

void decide(const std::vector<NamedGate>& gates, const std::vector<Decided>& decided) {
  for (size_t i = 0; i < gates.size(); ++i) {
    const int64_t layer = static_cast<int64_t>(i);
    const GateTrace forced = {{{layer, at::arange(decided[i].places).lt(decided[i].active).unsqueeze(0)}}};
    TokenGate gate = gates[i].gate;
    gate->forward(at::zeros({1, decided[i].places, kDim}), {}, {.forced_gates = &forced});
  }
}

TEST(GateController, DensityIsTheShareOfTheWorkAndEachEncoderHasItsOwn) {
  const std::vector<Decided> decided = {
      {"text.0", 10, 4, 1}, {"vision.0.0.mlp", 3, 100, 60}, {"vision.1.0.mlp", 30, 25, 5}};
  std::vector<NamedGate> gates;
  for (const Decided& each : decided) gates.push_back(make_gate(each, static_cast<int64_t>(gates.size())));
  GateController controller(gates, {.dense_warmup = 0, .rate = 1});
  controller.begin(0);
  decide(gates, decided);
  const auto collective = make_solo_collective();
  const at::Tensor figures = controller.finish(*collective);
  EXPECT_THAT(
      controller.figure_names(),
      ::testing::ElementsAre("density", "gate_multiplier", "density/text", "density/vision", "density/text.0",
                             "density/vision.0.0.mlp", "density/vision.1.0.mlp", "gate_entropy/text.0",
                             "gate_entropy/vision.0.0.mlp", "gate_entropy/vision.1.0.mlp"));
  const double text = 10 * 1, vision = 3 * 60 + 30 * 5;
  const double all_text = 10 * 4, all_vision = 3 * 100 + 30 * 25;
  const auto figure = [&](int64_t i) { return figures[i].item<double>(); };
  EXPECT_NEAR(figure(0), (text + vision) / (all_text + all_vision), 1e-6);
  EXPECT_NEAR(figure(2), text / all_text, 1e-6);
  EXPECT_NEAR(figure(3), vision / all_vision, 1e-6);
  EXPECT_NEAR(figure(4), 0.25, 1e-6);
  EXPECT_NEAR(figure(5), 0.6, 1e-6);
  const at::Tensor multiplier_M = controller.state().at("multiplier");
  ASSERT_EQ(multiplier_M.numel(), 2);
  EXPECT_NEAR(multiplier_M[0].item<double>(), text / all_text - 0.3, 1e-9);
  EXPECT_NEAR(multiplier_M[1].item<double>(), vision / all_vision - 0.3, 1e-9);
}

TEST(GateController, AStepWithoutAModalityLeavesItsMultiplier) {
  const std::vector<Decided> decided = {{"text.0", 10, 4, 1}, {"vision.0.0.mlp", 3, 100, 60}};
  std::vector<NamedGate> gates;
  for (const Decided& each : decided) gates.push_back(make_gate(each, static_cast<int64_t>(gates.size())));
  GateController controller(gates, {.dense_warmup = 0, .rate = 1});
  controller.begin(0);
  decide({gates[0]}, {decided[0]});
  const auto collective = make_solo_collective();
  controller.finish(*collective);
  const at::Tensor multiplier_M = controller.state().at("multiplier");
  EXPECT_NE(multiplier_M[0].item<double>(), 0);
  EXPECT_EQ(multiplier_M[1].item<double>(), 0);
}

/// A recorded step reads the same memory whenever it is replayed.
TEST(GateController, MultipliersStayInTheirMemory) {
  TokenGate gate(TokenGateOptions{
      .config = {.kind = GateKind::kCausal, .density = 0.3}, .dim = kDim, .places = 4, .gated_weights = 10});
  init_parameters(*gate, 1);
  GateController controller({{"0", gate}}, {.dense_warmup = 0, .rate = 1});
  const auto collective = make_solo_collective();
  const GateTrace all = {{{0, at::ones({1, 4}, at::kBool)}}};
  const ForwardContext context = {.training = true, .sample_share = 1, .forced_gates = &all};
  at::Tensor first;
  double last = -1;
  for (int64_t step = 0; step < 3; ++step) {
    controller.begin(step);
    const at::Tensor read = gate->counted(at::ones({1, 4, kDim}), {}, context).score.multiplier;
    if (step == 0) first = read;
    EXPECT_EQ(read.data_ptr(), first.data_ptr()) << step;
    EXPECT_GT(first.item<double>(), last) << step;
    last = first.item<double>();
    controller.finish(*collective);
  }
}

TEST(GateController, ComputesEverythingInTheWarmUpAndThenLowersItsTarget) {
  const std::vector<Decided> decided = {{"0", 10, 4, 4}};
  const std::vector<NamedGate> gates = {make_gate(decided[0], 0)};
  GateController controller(gates, {.dense_warmup = 4, .rate = 1});
  const auto collective = make_solo_collective();
  for (int64_t step = 0; step < 10; ++step) {
    controller.begin(step);
    EXPECT_EQ(gates[0].gate->dense(), step < 4) << step;
    decide(gates, decided);
    controller.finish(*collective);
    const double fallen = std::clamp(static_cast<double>(step - 4) / 4, 0.0, 1.0);
    EXPECT_NEAR(controller.state().at("error").item<double>(), 0.7 * fallen, 1e-9) << step;
  }
}

}  // namespace
}  // namespace fathom::gate_controller_test
