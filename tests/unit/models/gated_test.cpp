// Language models with gates: cached decoding, checkpointing, folders, a dense model that is given gates.
#include <set>

#include "model_fixture.h"
#include "nn/gated_rows.h"
#include "nn/token_gate.h"
#include "runtime/generate.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"

namespace fathom::gated_test {
namespace {

using namespace testing;

LanguageModelConfig gated_language(GateKind kind = GateKind::kCausal, GatedPart part = GatedPart::kBlock) {
  LanguageModelConfig config = small_language();
  config.layers = 3;
  config.gate = {.kind = kind, .part = part};
  return config;
}

LanguageModel filled(const LanguageModelConfig& config, at::ScalarType type = at::kDouble) {
  LanguageModel model(config);
  fill_by_formula(model);
  const at::NoGradGuard no_grad;
  for (auto& item : model->named_parameters())
    if (item.key().ends_with("scorer.out")) item.value().mul_(30);
  model->to(type);
  return model;
}

double density(LanguageModel model) {
  double active = 0, tokens = 0;
  for (auto [name, gate] : gates_of(*model)) {
    active += gate->counts()[GateCounts::kActive].item<double>();
    tokens += gate->counts()[GateCounts::kTokens].item<double>();
  }
  return active / tokens;
}

TEST(Gated, CachedDecodingTakesTheDecisionsOfTheFullPass) {
  const at::NoGradGuard no_grad;
  for (const GateKind kind : {GateKind::kCausal, GateKind::kTopK, GateKind::kRandom, GateKind::kAlternate})
    for (const GatedPart part : {GatedPart::kBlock, GatedPart::kAttention, GatedPart::kMlp}) {
      auto model = filled(gated_language(kind, part));
      const auto tokens = formula_tokens({3, 14}, 31);
      GateTrace whole;
      const auto full = model(tokens, at::Tensor(), ForwardContext{.gate_trace = &whole});
      EXPECT_GT(density(model), 0.1);
      EXPECT_LT(density(model), 0.95);
      auto cache = model->make_cache(3, 14);
      std::vector<at::Tensor> parts;
      std::map<int64_t, std::vector<at::Tensor>> decisions;
      for (const auto& [start, count] : {std::pair{0, 5}, {5, 1}, {6, 4}, {10, 1}, {11, 1}, {12, 2}}) {
        GateTrace trace;
        parts.push_back(model(tokens.narrow(1, start, count), at::Tensor(),
                              ForwardContext{.gate_trace = &trace}, &cache));
        for (const auto& [layer, active_BT] : trace.active_BT) decisions[layer].push_back(active_BT);
      }
      for (const auto& [layer, active] : decisions)
        EXPECT_TRUE(at::equal(at::cat(active, 1), whole.active_BT.at(layer)))
            << gate_kind_name(kind) << layer;
      EXPECT_LT((at::cat(parts, 1) - full).abs().max().item<double>(), 1e-6) << gate_kind_name(kind);
      if (part == GatedPart::kMlp) continue;
      for (const auto& [layer, active_BT] : whole.active_BT)
        for (int64_t row = 0; row < 3; ++row)
          EXPECT_EQ(cache.num_keys(layer, row), active_BT[row].sum().item<int64_t>());
    }
}

/// A recording refuses whatever waits for the device.
TEST(CudaGated, PrefillWaitsForNothingAndEqualsTheReference) {
  const CudaAvailability cuda = cuda_availability();
  if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
  const at::Device device = select_device("cuda:0");
  const auto runtime = make_device_runtime(device);
  const at::NoGradGuard no_grad;
  LanguageModelConfig config = gated_language();
  config.dim = 256;
  config.heads = 4;
  config.gate.inner = 32;
  auto reference = filled(config, at::kBFloat16);
  reference->to(at::kFloat);
  auto model = filled(config, at::kBFloat16);
  model->to(device);
  const auto tokens = formula_tokens({3, 14}, 31);
  const auto on_device = tokens.to(device);
  GateTrace decisions;
  auto cache = model->make_cache(3, 20);
  at::Tensor got;
  const auto prefill = [&] {
    cache.reset();
    got = model(on_device, at::Tensor(), ForwardContext{.gate_trace = &decisions}, &cache);
  };
  prefill();
  const auto graph = runtime->make_graph();
  graph->capture(prefill);
  graph->replay();
  runtime->synchronize();
  GateTrace forced;
  for (const auto& [layer, active_BT] : decisions.active_BT) forced.active_BT[layer] = active_BT.cpu();
  EXPECT_GT(density(model), 0.1);
  EXPECT_LT(density(model), 0.95);
  GateTrace own;
  reference(tokens, at::Tensor(), ForwardContext{.gate_trace = &own});
  EXPECT_GT(agreement(own, forced), 0.95);
  const auto expected = reference(tokens, at::Tensor(), ForwardContext{.forced_gates = &forced});
  EXPECT_LT(relative_error(got.cpu(), expected), 3e-2);
  for (const auto& [layer, active_BT] : forced.active_BT)
    for (int64_t row = 0; row < 3; ++row)
      EXPECT_EQ(cache.num_keys(layer, row), active_BT[row].sum().item<int64_t>());
  // A token behind it is computed one layer after the other, by the host's counts.
  const auto next = formula_tokens({3, 1}, 7);
  const auto all = at::cat({tokens, next}, 1);
  GateTrace last;
  const auto follows = model(next.to(device), at::Tensor(), ForwardContext{.gate_trace = &last}, &cache);
  for (auto& [layer, active_BT] : forced.active_BT)
    active_BT = at::cat({active_BT, last.active_BT.at(layer).cpu()}, 1);
  const auto whole = reference(all, at::Tensor(), ForwardContext{.forced_gates = &forced});
  EXPECT_LT(relative_error(follows.cpu(), whole.slice(1, 14)), 3e-2);
}

TEST(Gated, ForcedDecisionsAreTaken) {
  const at::NoGradGuard no_grad;
  auto model = filled(gated_language(), at::kFloat);
  const auto tokens = formula_tokens({2, 9}, 31);
  GateTrace own, forced, seen;
  const auto before = model(tokens, at::Tensor(), ForwardContext{.gate_trace = &own});
  for (const auto& [layer, active_BT] : own.active_BT) forced.active_BT[layer] = ~active_BT;
  const auto after =
      model(tokens, at::Tensor(), ForwardContext{.gate_trace = &seen, .forced_gates = &forced});
  for (const auto& [layer, active_BT] : forced.active_BT)
    EXPECT_TRUE(at::equal(seen.active_BT.at(layer), active_BT));
  EXPECT_GT((before - after).abs().max().item<double>(), 1e-3);
  const auto repeated = model(tokens, at::Tensor(), ForwardContext{.forced_gates = &own});
  EXPECT_TRUE(at::equal(repeated, before));
}

TEST(Gated, CheckpointingGivesTheSameGradientsBitForBit) {
  auto config = gated_language();
  config.dropout = config.drop_path = 0.3;
  auto model = filled(config, at::kFloat);
  for (auto [name, gate] : gates_of(*model)) gate->set_multiplier(at::full({}, 0.7));
  const auto tokens = formula_tokens({3, 7}, 31), length_B = at::tensor({7, 5, 2}, at::kLong);
  const auto gradients = [&](bool checkpoint, int64_t key) {
    const ForwardContext context = {.training = true,
                                    .key_B = at::arange(3) + key,
                                    .checkpoint_blocks = checkpoint,
                                    .explore = 0.5,
                                    .sample_share = 0.3};
    return torch::autograd::grad({model->pooled(tokens, length_B, context).square().sum()},
                                 model->parameters(), {}, {}, false, /*allow_unused=*/true);
  };
  const auto plain = gradients(false, 0), recomputed = gradients(true, 0), other = gradients(false, 5);
  bool differs = false;
  for (size_t i = 0; i < plain.size(); ++i) {
    ASSERT_EQ(plain[i].defined(), recomputed[i].defined()) << i;
    if (!plain[i].defined()) continue;
    EXPECT_TRUE(at::equal(plain[i], recomputed[i])) << i;
    differs = differs || !at::equal(plain[i], other[i]);
  }
  EXPECT_TRUE(differs);
}

TEST(Gated, FoldersKeepGatesBesideWhatOthersKnow) {
  const at::NoGradGuard no_grad;
  for (const GateKind kind : {GateKind::kCausal, GateKind::kTopK}) {
    auto model = filled(gated_language(kind), at::kFloat);
    const TemporaryFolder folder;
    save_model_folder(folder / "model", model, {});
    LoadedModel loaded = load_model_folder(folder / "model");
    EXPECT_EQ(config_to_json(loaded.language->config().gate), config_to_json(model->config().gate));
    const auto tokens = formula_tokens({2, 9}, 31);
    EXPECT_TRUE(at::equal(loaded.language(tokens), model(tokens)));
    std::filesystem::remove(folder / "model/fathom.safetensors");
    EXPECT_NE(error_of([&] { load_model_folder(folder / "model"); }, ErrorKind::kCheckpoint), "");
  }
}

TEST(Gated, ParametersAreCountedWithoutAModel) {
  for (const GateKind kind : {GateKind::kCausal, GateKind::kTopK, GateKind::kRandom, GateKind::kPooled}) {
    auto config = gated_language(kind);
    if (kind == GateKind::kPooled) config.attention = AttentionKind::kBidirectional;
    LanguageModel model(config);
    int64_t count = 0;
    for (const auto& parameter : model->parameters()) count += parameter.numel();
    EXPECT_EQ(parameter_count(config), count) << gate_kind_name(kind);
  }
  auto half = gated_language();
  half.vocab_size = 0;
  auto dense = half;
  dense.gate = {};
  EXPECT_LT(forward_flops(half, 1, 32), 0.7 * static_cast<double>(forward_flops(dense, 1, 32)));
}

/// Every other layer as Mixture-of-Depths has it: the first and the last of three are dense.
LanguageModelConfig mixed_language(GateKind kind, double density = 0.4) {
  LanguageModelConfig config = gated_language(kind);
  config.gate.layer_density = {1, density, 1};
  return config;
}

TEST(Gated, ALayerOfDensityOneHasNoGate) {
  LanguageModelConfig dense = gated_language(GateKind::kNone);
  for (const GateKind kind : {GateKind::kCausal, GateKind::kTopK, GateKind::kRandom}) {
    const LanguageModelConfig config = mixed_language(kind);
    LanguageModel model(config);
    const std::vector<NamedGate> gates = gates_of(*model);
    ASSERT_EQ(gates.size(), 1u) << gate_kind_name(kind);
    EXPECT_EQ(gates[0].name, "1");
    EXPECT_EQ(num_weights(*model), parameter_count(config)) << gate_kind_name(kind);
    EXPECT_EQ(num_weights(*model), parameter_count(dense) + num_weights(*gates[0].gate));
  }
  LanguageModelConfig flops = mixed_language(GateKind::kCausal, 1);
  EXPECT_EQ(forward_flops(flops, 1, 32), forward_flops(dense, 1, 32));
  flops.gate.layer_density = {0.4, 0.4, 0.4};
  const int64_t all_gated = forward_flops(dense, 1, 32) - forward_flops(flops, 1, 32);
  flops.gate.layer_density = {1, 0.4, 1};
  EXPECT_NEAR(static_cast<double>(forward_flops(dense, 1, 32) - forward_flops(flops, 1, 32)),
              static_cast<double>(all_gated) / 3, 2);
}

TEST(Gated, AModelOfDensityOneIsTheDenseOneBitForBit) {
  const at::NoGradGuard no_grad;
  auto dense = filled(gated_language(GateKind::kNone), at::kFloat);
  LanguageModelConfig ones = mixed_language(GateKind::kCausal, 1), one = gated_language();
  one.gate.density = 1;
  const auto tokens = formula_tokens({2, 9}, 31);
  for (LanguageModelConfig config : {ones, one}) {
    auto model = filled(config, at::kFloat);
    EXPECT_TRUE(gates_of(*model).empty());
    EXPECT_EQ(model->named_parameters().keys(), dense->named_parameters().keys());
    EXPECT_TRUE(at::equal(model(tokens), dense(tokens)));
    const TemporaryFolder folder;
    save_model_folder(folder / "model", model, {});
    EXPECT_FALSE(std::filesystem::exists(folder / "model/fathom.safetensors"));
    LoadedModel loaded = load_model_folder(folder / "model");
    EXPECT_TRUE(at::equal(loaded.language(tokens), dense(tokens)));
  }
}

TEST(Gated, DenseAndGatedLayersShareACacheAndAFolder) {
  const at::NoGradGuard no_grad;
  auto model = filled(mixed_language(GateKind::kCausal));
  // The formula's weights would let every token through.
  gates_of(*model)[0].gate->named_parameters()["scorer.bias"].sub_(0.8);
  const auto tokens = formula_tokens({3, 14}, 31);
  GateTrace whole;
  const auto full = model(tokens, at::Tensor(), ForwardContext{.gate_trace = &whole});
  ASSERT_EQ(whole.active_BT.size(), 1u);
  EXPECT_GT(density(model), 0);
  EXPECT_LT(density(model), 1);
  auto cache = model->make_cache(3, 14);
  std::vector<at::Tensor> parts;
  for (const auto& [start, count] : {std::pair{0, 5}, {5, 1}, {6, 4}, {10, 4}})
    parts.push_back(model(tokens.narrow(1, start, count), at::Tensor(), ForwardContext{}, &cache));
  EXPECT_LT((at::cat(parts, 1) - full).abs().max().item<double>(), 1e-6);
  for (int64_t row = 0; row < 3; ++row)
    EXPECT_EQ(cache.num_keys(1, row), whole.active_BT.at(1)[row].sum().item<int64_t>());
  model->to(at::kFloat);
  const TemporaryFolder folder;
  save_model_folder(folder / "model", model, {});
  LoadedModel loaded = load_model_folder(folder / "model");
  EXPECT_TRUE(at::equal(loaded.language(tokens), model(tokens)));
}

/// The scores of GateKind::kPooled stand for places, of which a padded row has more.
TEST(Gated, ASoundIsGatedAlikeInALongerBatch) {
  const at::NoGradGuard no_grad;
  AudioEncoder model(AudioEncoderConfig{.front_end = AudioFrontEnd::kSubBands,
                                        .bands = 8,
                                        .sub_bands = 2,
                                        .dim = 16,
                                        .layers = 1,
                                        .heads = 2,
                                        .max_frames = 60,
                                        .gate = {.kind = GateKind::kPooled}});
  fill_by_formula(model);
  for (auto& item : model->named_parameters())
    if (item.key().ends_with("pooled.up.bias")) item.value().mul_(50).sub_(2);
  model->to(at::kDouble);
  const auto active_in = [&](int64_t frames) {
    auto mel_1FS = at::zeros({1, 8, frames}, at::kDouble);
    mel_1FS.slice(2, 0, 20).copy_(formula_uniform("mel", 160).view({1, 8, 20}));
    GateTrace trace;
    model->features(mel_1FS, at::tensor({int64_t{20}}), {.gate_trace = &trace});
    return trace.active_BT.begin()->second.view({2, frames / 2}).slice(1, 0, 10).clone();
  };
  const auto alone = active_in(20);
  EXPECT_GT(alone.sum().item<int64_t>(), 0);
  EXPECT_LT(alone.sum().item<int64_t>(), 20);
  EXPECT_TRUE(at::equal(active_in(32), alone));
}

TEST(Gated, ADecoderTakesNoGateThatSeesLaterTokens) {
  for (const GateKind kind : {GateKind::kToken, GateKind::kPooled})
    EXPECT_NE(error_of([&] { gated_language(kind).validate(); }, ErrorKind::kConfig), "");
  auto config = gated_language();
  config.gate.layer_density = {0.5, 0.5};
  EXPECT_NE(error_of([&] { config.validate(); }, ErrorKind::kConfig), "");
}

}  // namespace
}  // namespace fathom::gated_test
