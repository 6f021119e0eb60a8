// Low-rank adapters: against PyTorch and peft (tests/golden/lora_golden.py), merged and not, on disk.
#include "models/lora.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cstdlib>

#include "model_fixture.h"
#include "models/adapter_folder.h"
#include "models/language/hf_map.h"
#include "models/model_folder.h"
#include "nn/swin_block.h"

namespace fathom::lora_test {
namespace {

namespace fs = std::filesystem;
using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kLoraGoldens = FATHOM_GOLDENS "/lora/";

/// Adapters with values that do something.
void fill_adapters(torch::nn::Module& module) {
  const at::NoGradGuard no_grad;
  for (auto& item : module.named_parameters())
    if (item.key().find(".lora_") != std::string::npos)
      item.value().copy_(formula_weight(item.key() + ".matrix", item.value().sizes()));
}

LoraConfig every_layer(double dropout = 0) {
  return {.rank = 3, .alpha = 4, .dropout = dropout, .patterns = {"*"}};
}

LanguageModel small_model(at::ScalarType type = at::kFloat) {
  LanguageModel model(small_language());
  model->to(type);
  fill_by_formula(model);
  return model;
}

LanguageModel adapted_model(double dropout = 0) {
  LanguageModel model = small_model(at::kDouble);
  add_adapters(*model, every_layer(dropout), 7);
  fill_adapters(*model);
  return model;
}

at::Tensor logits_of(LanguageModel model, const ForwardContext& context = {}) {
  const at::NoGradGuard no_grad;
  return model->forward(formula_tokens({4, 9}, small_language().vocab_size), {}, context);
}

/// Three towers, with adapters of their own and regions.
DualTower small_hearing_tower(RegionScore region) {
  DualTowerConfig config = small_dual_tower();
  config.region = region;
  config.adapters = 3;
  config.audio_tower = true;
  config.audio = {.bands = 24, .dim = 16, .layers = 2, .heads = 4, .mlp_dim = 24};
  DualTower model(config);
  fill_by_formula(model);
  model->to(at::kDouble);
  return model;
}

TEST(DualTowerTest, EveryAdaptedLayerDropsOutInTraining) {
  const auto mel = formula_weight("mel.matrix", {2, 24, 40}).to(at::kDouble);
  const auto image = formula_image({2, 3, 32, 32}).to(at::kDouble);
  const auto tokens = formula_tokens({2, 7}, 31), length = at::tensor({7, 5}, at::kLong);
  for (const RegionScore region : {RegionScore::kAttention, RegionScore::kLate}) {
    DualTower plain = small_hearing_tower(region);
    for (const auto& [layer, unused] : linear_layers(*plain)) {
      DualTower model = small_hearing_tower(region);
      add_adapters(*model, {.rank = 2, .alpha = 4, .dropout = 0.5, .patterns = {layer}}, 7);
      fill_adapters(*model);
      const auto outputs = [&](const ForwardContext& context) {
        const at::NoGradGuard no_grad;
        const PairSide pictures = model->encode_image(image, context),
                       texts = model->encode_text(tokens, length, context);
        std::vector<at::Tensor> found;
        for (const PairSide& side : {pictures, texts})
          for (const at::Tensor& part : {side.whole_ND, side.key_NSD, side.value_NSD})
            if (part.defined()) found.push_back(part.flatten().to(at::kDouble));
        found.push_back(model->embed_sound(mel, at::tensor({40, 30}, at::kLong), context).flatten());
        return at::cat(found);
      };
      const at::Tensor dropped = outputs({.training = true, .key_B = sample_keys(2)});
      EXPECT_GT((outputs({}) - dropped).abs().max().item<double>(), 1e-9) << layer;
    }
  }
}

TEST(Lora, LearnsAsInPyTorch) {
  constexpr int64_t kRows = 6, kInputs = 5, kOutputs = 4;
  const auto matrix = [](const char* name, at::IntArrayRef shape) {
    return formula_weight(name, shape).to(at::kDouble);
  };
  Linear layer(LinearOptions{.in = kInputs, .out = kOutputs});
  layer->to(at::kDouble);
  const Lora adapter = layer->add_adapter("default", {.rank = 2, .alpha = 3.0});
  {
    const at::NoGradGuard no_grad;
    at::Tensor(layer->weight()).copy_(matrix("w.weight", {kOutputs, kInputs}));
    at::Tensor(layer->bias()).copy_(matrix("w.bias", {kOutputs}));
    at::Tensor(adapter->a()).copy_(matrix("a.weight", {2, kInputs}));
    at::Tensor(adapter->b()).zero_();
  }
  const auto x = matrix("x.matrix", {kRows, kInputs}), target = matrix("target.matrix", {kRows, kOutputs});
  torch::optim::AdamW optimizer(
      std::vector<at::Tensor>{adapter->a(), adapter->b()},
      torch::optim::AdamWOptions(0.05).betas(std::make_tuple(0.9, 0.98)).eps(1e-8).weight_decay(0.1));
  const Json golden = read_json_file(kLoraGoldens + "training.json");
  for (const Json& expected : golden.at("losses").as_array()) {
    optimizer.zero_grad();
    const auto loss = (layer(x) - target).square().mean();
    loss.backward();
    optimizer.step();
    EXPECT_NEAR(loss.item<double>(), expected.as_double(), 1e-12);
  }
  layer->merge_adapters();
  for (int64_t i = 0; i < kOutputs * kInputs; ++i)
    EXPECT_NEAR(layer->weight().flatten()[i].item<double>(),
                golden.at("merged").as_array()[static_cast<size_t>(i)].as_double(), 1e-12);
}

class PeftGolden : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Cases, PeftGolden, ::testing::Values("all", "query_value"));
TEST_P(PeftGolden, LogitsUnderAnAdapterAreThoseOfPeft) {
  const std::string name = GetParam();
  const TemporaryFolder folder;
  fs::copy_file(kLoraGoldens + name + ".adapter_config.json", folder / "adapter_config.json");
  save_tensors(folder / "adapter_model.safetensors", foreign_tensors(kLoraGoldens + name + ".weights.json"));
  LoadedModel loaded = foreign_model("llama");
  const auto tokens = formula_tokens({2, 17}, loaded.language->config().vocab_size);
  const at::NoGradGuard no_grad;
  const auto plain = loaded.language(tokens);
  add_adapter_folder(loaded, folder.path(), "first", 1.0);
  const auto golden = load_tensors(kLoraGoldens + "outputs.safetensors").at(name);
  EXPECT_LT((loaded.language(tokens) - golden).abs().max().item<double>(), 1e-4);
  EXPECT_GT((plain - golden).abs().max().item<double>(), 0.1);
  merge_adapters(*loaded.language);
  EXPECT_FALSE(has_adapters(*loaded.language));
  EXPECT_LT((loaded.language(tokens) - golden).abs().max().item<double>(), 1e-4);
}

TEST(Lora, StartsFromTheModelAndFreezesIt) {
  LanguageModel model = small_model();
  const auto before = logits_of(model);
  EXPECT_EQ(add_adapters(*model, {.rank = 2, .patterns = {"blocks.1.*"}, .also_train = {"norm.weight"}}, 7),
            4);
  EXPECT_TRUE(at::equal(logits_of(model), before)) << "B begins with 0";
  for (const auto& item : model->named_parameters()) {
    const bool trained =
        item.key() == "norm.weight" || item.key().find(".lora_default.") != std::string::npos;
    EXPECT_EQ(item.value().requires_grad(), trained) << item.key();
    if (item.key().ends_with("lora_default.a")) {
      EXPECT_GT(item.value().std().item<double>(), 0.05);
    }
  }
  LanguageModel other = small_model();
  add_adapters(*other, {.rank = 2, .patterns = {"blocks.1.*"}}, 7);
  EXPECT_TRUE(at::equal(other->named_parameters()["blocks.1.mlp.down.lora_default.a"],
                        model->named_parameters()["blocks.1.mlp.down.lora_default.a"]));
}

TEST(Lora, MergedEqualsUnmerged) {
  LanguageModel model = adapted_model();
  const auto plain = logits_of(small_model(at::kDouble)), unmerged = logits_of(model);
  EXPECT_GT((unmerged - plain).abs().max().item<double>(), 0.1);
  merge_adapters(*model);
  EXPECT_LT((logits_of(model) - unmerged).abs().max().item<double>(), 1e-10);
}

TEST(Lora, MergedWeightsComeAndGo) {
  LanguageModel model = adapted_model();
  const auto weight = model->named_parameters()["blocks.0.mlp.down.weight"];
  const auto before = weight.detach().clone();
  {
    const MergedWeights merged(*model);
    EXPECT_FALSE(at::equal(weight, before));
  }
  EXPECT_TRUE(at::equal(weight, before));
}

TEST(Lora, AdaptersAreChosenAndMixed) {
  LanguageModel model = small_model(at::kDouble);
  const auto plain = logits_of(model);
  add_adapters(*model, every_layer(), 7);
  fill_adapters(*model);
  const auto first = logits_of(model);
  for (const auto& [name, layer] : linear_layers(*model))
    layer->add_adapter("second", {.rank = 1, .alpha = 1});
  fill_adapters(*model);
  weigh_adapters(*model, "second", 0);
  EXPECT_TRUE(at::equal(logits_of(model), first));
  weigh_adapters(*model, "default", 0);
  EXPECT_TRUE(at::equal(logits_of(model), plain));
  weigh_adapters(*model, "default", 0.25);
  weigh_adapters(*model, "second", -0.5);
  const auto mixed = logits_of(model);
  EXPECT_GT((mixed - first).abs().max().item<double>(), 0.01);
  merge_adapters(*model);
  EXPECT_LT((logits_of(model) - mixed).abs().max().item<double>(), 1e-10);
  EXPECT_THAT(error_of([&] { weigh_adapters(*adapted_model(), "third", 1); }, ErrorKind::kConfig),
              HasSubstr("no adapter \"third\"; there are: default"));
}

TEST(Lora, DropoutIsKeyedBySample) {
  LanguageModel model = adapted_model(0.5);
  const auto still = logits_of(model);
  const ForwardContext context{.training = true, .key_B = sample_keys(4)};
  const auto noisy = logits_of(model, context);
  EXPECT_GT((noisy - still).abs().max().item<double>(), 0.05);
  EXPECT_TRUE(at::equal(logits_of(model, context), noisy));
  const at::NoGradGuard no_grad;
  const auto tokens = formula_tokens({4, 9}, small_language().vocab_size);
  const auto second_half =
      model->forward(tokens.slice(0, 2), {}, {.training = true, .key_B = sample_keys(4).slice(0, 2)});
  EXPECT_LT((second_half - noisy.slice(0, 2)).abs().max().item<double>(), 1e-12);
}

TEST(Lora, DropoutOfWindowsBelongsToTheirPicture) {
  SwinBlock block(SwinBlockOptions{.dim = 8, .heads = 2, .window = 2, .mlp_ratio = 2});
  block->to(at::kDouble);
  fill_by_formula(block);
  add_adapters(*block, every_layer(0.5), 7);
  fill_adapters(*block);
  const at::NoGradGuard no_grad;
  const auto x = formula_image({3, 4, 4, 8}).to(at::kDouble);
  const auto all = block->forward(x, {.training = true, .key_B = sample_keys(3)});
  const auto last = block->forward(x.slice(0, 2), {.training = true, .key_B = sample_keys(3).slice(0, 2)});
  EXPECT_LT((all.slice(0, 2) - last).abs().max().item<double>(), 1e-12);
  EXPECT_GT((all - block->forward(x, {})).abs().max().item<double>(), 1e-3);
}

/// A base model in a folder, and one with adapters on it.
class AdapterFolder : public ::testing::Test {
 protected:
  AdapterFolder() {
    save_model_folder(base(), small_model());
    model_ = small_model();
    add_adapters(*model_, every_layer(), 7);
    fill_adapters(*model_);
    save_model_folder(adapter(), model_, {.adapter_base = base()});
  }
  std::string base() const { return folder_ / "base"; }
  std::string adapter() const { return folder_ / "adapter"; }
  std::string error_of_adding() const {
    return error_of(
        [&] {
          LoadedModel loaded = load_model_folder(base());
          add_adapter_folder(loaded, adapter(), "x", 1);
        },
        ErrorKind::kCheckpoint);
  }
  void change_config(const std::string& key, const Json& value) const {
    Json config = read_json_file(adapter() + "/adapter_config.json");
    config[key] = value;
    write_json_file(adapter() + "/adapter_config.json", config);
  }
  void change_tensors(const std::function<void(TensorMap&)>& change) const {
    TensorMap tensors = load_tensors(adapter() + "/adapter_model.safetensors");
    change(tensors);
    save_tensors(adapter() + "/adapter_model.safetensors", tensors);
  }

  TemporaryFolder folder_;
  LanguageModel model_{nullptr};
};

TEST_F(AdapterFolder, IsReadAsTheAdaptedModel) {
  EXPECT_EQ(model_kind(adapter()), ModelKind::kLanguage);
  EXPECT_LT(fs::file_size(adapter() + "/adapter_model.safetensors"),
            fs::file_size(base() + "/model.safetensors"));
  const auto loaded = load_model_folder(adapter());
  EXPECT_LT(relative_error(logits_of(loaded.language), logits_of(model_)), 1e-4);
  fs::remove(adapter() + "/fathom.json");  // as others would write it
  EXPECT_LT(relative_error(logits_of(load_model_folder(adapter()).language), logits_of(model_)), 1e-4);
}

TEST_F(AdapterFolder, ComesBackBitForBit) {
  LoadedModel loaded = load_model_folder(base());
  add_adapter_folder(loaded, adapter(), "default", 1);
  const auto saved = model_->named_parameters(), read = loaded.language->named_parameters();
  ASSERT_EQ(saved.size(), read.size());
  for (const auto& item : saved) EXPECT_TRUE(at::equal(item.value(), read[item.key()])) << item.key();
}

TEST_F(AdapterFolder, SavingWholeModelsAddsTheAdapters) {
  save_model_folder(folder_ / "whole", model_);
  auto loaded = load_model_folder(folder_ / "whole");
  EXPECT_FALSE(has_adapters(*loaded.language));
  EXPECT_LT(relative_error(logits_of(loaded.language), logits_of(model_)), 1e-4);
  EXPECT_TRUE(has_adapters(*model_));
}

TEST_F(AdapterFolder, OfADualTower) {
  DualTower model(small_dual_tower());
  fill_by_formula(model);
  save_model_folder(folder_ / "tower", model);
  add_adapters(*model, every_layer(), 7);
  fill_adapters(*model);
  const auto embed = [](DualTower tower) {
    const at::NoGradGuard no_grad;
    return at::cat({tower->embed_image(formula_image({2, 3, 32, 32})),
                    tower->embed_text(formula_tokens({2, 9}, small_language().vocab_size), {})});
  };
  const auto expected = embed(model);
  save_model_folder(folder_ / "tower-adapter", model, {.adapter_base = folder_ / "tower"});
  save_model_folder(folder_ / "tower-merged", model);
  for (const char* name : {"tower-adapter", "tower-merged"})
    EXPECT_LT(relative_error(embed(load_model_folder(folder_ / name).dual_tower), expected), 1e-3) << name;
  EXPECT_GT(relative_error(embed(load_model_folder(folder_ / "tower").dual_tower), expected), 1e-2);
}

TEST_F(AdapterFolder, BrokenOnesSayWhatIsWrong) {
  change_config("peft_type", "IA3");
  EXPECT_THAT(error_of_adding(), HasSubstr("adapter_config.json: peft_type 'IA3' is not supported"));
  change_config("peft_type", "LORA");
  change_config("use_dora", true);
  EXPECT_THAT(error_of_adding(), HasSubstr("use_dora is not supported"));
  change_config("use_dora", false);
  change_config("modules_to_save", Json(Json::Array{"lm_head"}));
  EXPECT_THAT(error_of_adding(), HasSubstr("modules_to_save"));
  change_config("modules_to_save", Json());
  change_config("lora_alpha", -1);
  EXPECT_THAT(error_of_adding(), HasSubstr("lora_alpha"));
  change_config("lora_alpha", 4);
  EXPECT_EQ(error_of_adding(), "");

  const std::string down = "base_model.model.model.layers.0.mlp.down_proj.";
  at::Tensor b;
  change_tensors([&](TensorMap& tensors) { b = tensors.extract(down + "lora_B.weight").mapped(); });
  EXPECT_THAT(error_of_adding(), HasSubstr("down_proj has only one of lora_A and lora_B"));
  change_tensors([&](TensorMap& tensors) { tensors[down + "lora_B.weight"] = b.t().contiguous(); });
  EXPECT_THAT(error_of_adding(),
              HasSubstr("lora_A is [3, 40] and lora_B [3, 24], expected [rank, 40] and [24, rank]"));
  change_tensors([&](TensorMap& tensors) {
    tensors[down + "lora_B.weight"] = b;
    tensors["base_model.model.model.layers.9.mlp.down_proj.lora_A.weight"] = b;
  });
  EXPECT_THAT(error_of_adding(),
              HasSubstr("1 tensors have no place in this model, such as base_model.model.model.layers.9."));
  fs::remove(adapter() + "/adapter_model.safetensors");
  EXPECT_THAT(error_of_adding(), HasSubstr("the adapter's weights are not there"));
  fs::remove_all(base());
  EXPECT_THAT(error_of([&] { load_model_folder(adapter()); }, ErrorKind::kCheckpoint),
              AllOf(HasSubstr("adapters of a model in"), HasSubstr("which is no model folder")));
}

TEST(Lora, PatternsThatFitNothingNameTheNearest) {
  LanguageModel model = small_model();
  EXPECT_THAT(error_of([&] { add_adapters(*model, {.rank = 2, .patterns = {"blocks.0.mlp.dow"}}, 7); },
                       ErrorKind::kConfig),
              HasSubstr("lora.patterns: no linear layer fits \"blocks.0.mlp.dow\"; did you mean "
                        "\"blocks.0.mlp.down\"?"));
  EXPECT_FALSE(has_adapters(*model));
}

/// Kept for peft to read: tests/golden/lora_golden.py check.
TEST(Lora, IsWrittenForPeft) {
  const char* keep = std::getenv("FATHOM_KEEP_MODELS");
  const TemporaryFolder temporary;
  const std::string folder = keep != nullptr ? keep : temporary.path();
  LoadedModel loaded = foreign_model("llama");
  save_model_folder(folder + "/base", loaded.language);
  add_adapters(*loaded.language, every_layer(), 7);
  fill_adapters(*loaded.language);
  save_model_folder(folder + "/adapter", loaded.language, {.adapter_base = folder + "/base"});
  const auto tokens = formula_tokens({2, 17}, loaded.language->config().vocab_size);
  const at::NoGradGuard no_grad;
  save_tensors(folder + "/outputs.safetensors", {{"tokens", tokens}, {"logits", loaded.language(tokens)}});
  const auto names = load_tensors(folder + "/adapter/adapter_model.safetensors");
  EXPECT_EQ(names.size(), 3u * 7 * 2) << "three layers of seven projections";
  EXPECT_TRUE(names.contains("base_model.model.model.layers.2.self_attn.k_proj.lora_B.weight"));
}

}  // namespace
}  // namespace fathom::lora_test
