// Model folders: what is saved comes back, what does not fit is listed.
#include "models/model_folder.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "model_fixture.h"
#include "models/language/hf_map.h"
#include "models/weight_map.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

template <typename Model>
void expect_same_parameters(const Model& a, const Model& b) {
  const auto theirs = b->named_parameters();
  for (const auto& item : a->named_parameters())
    EXPECT_TRUE(at::equal(item.value(), theirs[item.key()])) << item.key();
}

std::string load_error(const std::string& path) {
  return error_of([&] { load_model_folder(path); }, ErrorKind::kCheckpoint);
}

TEST(ModelFolder, GivesALanguageModelBack) {
  const TemporaryFolder folder;
  auto config = small_language();
  config.qkv_bias = true;
  config.tied_head = false;
  config.attention = AttentionKind::kBidirectional;
  config.pool = Pool::kMean;
  config.dropout = 0.25;
  LanguageModel model(config);
  fill_by_formula(model);
  ModelExtras extras;
  extras.record["steps"] = 12;
  save_model_folder(folder / "model", model, extras);
  const auto loaded = load_model_folder(folder / "model");
  EXPECT_EQ(loaded.kind, ModelKind::kLanguage);
  EXPECT_EQ(config_to_json(loaded.language->config()), [&] {
    config.kv_heads = config.num_kv_heads();
    config.head_dim = config.head_size();
    config.mlp_dim = config.mlp_size();
    return config_to_json(config);
  }());
  expect_same_parameters(model, loaded.language);
  EXPECT_EQ(loaded.extras.record.at("steps").as_int(), 12);
  fs::remove(folder / "model/fathom.json");  // as others would write it
  expect_same_parameters(model, load_model_folder(folder / "model").language);
}

TEST(ModelFolder, GivesADualTowerBackAndItsTowersAlone) {
  const TemporaryFolder folder;
  DualTower model(small_dual_tower());
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  save_model_folder(folder / "model", model);  // over the old one
  EXPECT_EQ(model_kind(folder / "model"), ModelKind::kDualTower);
  const auto loaded = load_model_folder(folder / "model");
  expect_same_parameters(model, loaded.dual_tower);
  EXPECT_EQ(config_to_json(loaded.dual_tower->config()), config_to_json(model->config()));
  expect_same_parameters(model->text(), load_model_folder(folder / "model/text").language);
  expect_same_parameters(model->vision(), load_model_folder(folder / "model/vision").vision);
  EXPECT_FALSE(fs::exists(folder / "model.tmp"));
}

TEST(ModelFolder, ConvertsTypes) {
  const TemporaryFolder folder;
  Swin model(small_swin());
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  const auto half = load_model_folder(folder / "model", {.dtype = at::kBFloat16}).vision;
  for (const auto& item : half->named_parameters()) {
    EXPECT_EQ(item.value().scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(item.value(), model->named_parameters()[item.key()].to(at::kBFloat16)));
  }
}

TEST(ModelFolder, ListsWhatDoesNotFit) {
  const TemporaryFolder folder;
  LanguageModel model(small_language());
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  auto tensors = load_tensors(folder / "model/model.safetensors");
  tensors.erase("model.layers.1.mlp.up_proj.weight");
  tensors["model.layers.0.input_layernorm.weight"] = at::ones({23});
  tensors["model.layers.2.input_layernorm.weight"] = at::ones({24});
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone();  // tied: may be there
  save_tensors(folder / "model/model.safetensors", tensors);
  EXPECT_THAT(load_error(folder / "model"),
              AllOf(HasSubstr("missing: model.layers.1.mlp.up_proj.weight"),
                    HasSubstr("shape: model.layers.0.input_layernorm.weight is [23], expected [24]"),
                    HasSubstr("unexpected: model.layers.2.input_layernorm.weight"),
                    ::testing::Not(HasSubstr("lm_head"))));
  for (int i = 0; i < 40; ++i) tensors["extra." + std::to_string(i)] = at::ones({1});
  save_tensors(folder / "model/model.safetensors", tensors);
  EXPECT_THAT(load_error(folder / "model"), HasSubstr("and 23 more"));
}

TEST(ModelFolder, ReadsShards) {
  const TemporaryFolder folder;
  LanguageModel model(small_language());
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  const auto tensors = load_tensors(folder / "model/model.safetensors");
  TensorMap shards[2];
  Json index = Json::object();
  for (const auto& [name, tensor] : tensors) {
    const size_t shard = shards[0].size() < 9 ? 0 : 1;
    shards[shard][name] = tensor;
    index["weight_map"][name] = "part-" + std::to_string(shard) + ".safetensors";
  }
  fs::remove(folder / "model/model.safetensors");
  EXPECT_THAT(load_error(folder / "model"), HasSubstr("no model.safetensors"));
  write_json_file(folder / "model/model.safetensors.index.json", index);
  save_tensors(folder / "model/part-0.safetensors", shards[0]);
  EXPECT_THAT(load_error(folder / "model"), HasSubstr("part-1.safetensors"));
  save_tensors(folder / "model/part-1.safetensors", shards[1]);
  expect_same_parameters(model, load_model_folder(folder / "model").language);
  index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors";
  write_json_file(folder / "model/model.safetensors.index.json", index);
  EXPECT_THAT(load_error(folder / "model"), HasSubstr("names no file of this folder"));
}

TEST(ModelFolder, RefusesWhatIsNotOurs) {
  const TemporaryFolder folder;
  EXPECT_THAT(load_error(folder / "nowhere"), HasSubstr("no such model folder"));
  fs::create_directories(folder / "empty");
  EXPECT_THAT(load_error(folder / "empty"), HasSubstr("no model"));
  fs::create_directories(folder / "gpt2");
  write_file_atomically(folder / "gpt2/config.json", R"({"model_type": "gpt2"})");
  EXPECT_THAT(load_error(folder / "gpt2"), HasSubstr("model_type 'gpt2'"));
  write_file_atomically(folder / "file", "x");
  EXPECT_THAT(
      error_of([&] { save_model_folder(folder / "file", Swin(small_swin())); }, ErrorKind::kCheckpoint),
      HasSubstr("a file stands"));
}

/// For tests/golden/models_check.py: set FATHOM_KEEP_MODELS to a folder to have the models stay.
TEST(ModelFolder, IsWrittenForTransformers) {
  const char* keep = std::getenv("FATHOM_KEEP_MODELS");
  if (keep == nullptr)
    GTEST_SKIP() << "set FATHOM_KEEP_MODELS to write models for tests/golden/models_check.py";
  at::NoGradGuard no_grad;
  const auto write = [&](const std::string& name, const auto& model, const TensorMap& outputs) {
    save_model_folder(keep + ("/" + name), model);
    save_tensors(keep + ("/" + name + "/outputs.safetensors"), outputs);
  };
  DualTower tower(small_dual_tower());
  fill_by_formula(tower);
  const auto tokens = formula_tokens({2, 9}, 31), image = formula_image({2, 3, 32, 32});
  write("dual_tower", tower,
        {{"tokens", tokens},
         {"image", image},
         {"logits", tower->text()(tokens)},
         {"features", tower->vision()->features(image)}});
  for (const bool qwen : {false, true}) {
    auto config = small_language();
    config.qkv_bias = qwen;
    config.tied_head = false;
    config.rope_theta = 500.0;
    LanguageModel model(config);
    fill_by_formula(model);
    write(qwen ? "qwen2" : "llama", model, {{"tokens", tokens}, {"logits", model(tokens)}});
  }
}

TEST(HfConfig, RefusesWhatTheDecoderLacksByName) {
  const auto refusal = [](const char* key, const Json& value) {
    Json json = language_config_to_hf(small_language());
    json[key] = value;
    return error_of([&] { language_config_from_hf(json, "config.json"); }, ErrorKind::kCheckpoint);
  };
  EXPECT_THAT(refusal("hidden_act", "gelu"), HasSubstr("activation 'gelu'"));
  EXPECT_THAT(refusal("rope_scaling", parse_json(R"({"rope_type": "yarn"})", "")),
              HasSubstr("scaling 'yarn'"));
  EXPECT_THAT(refusal("attention_bias", true), HasSubstr("attention_bias"));
  EXPECT_THAT(refusal("hidden_size", "wide"), HasSubstr("hidden_size must be an integer"));
  EXPECT_THAT(refusal("hidden_size", -4), HasSubstr("config.json"));
  EXPECT_THAT(refusal("num_key_value_heads", 3), HasSubstr("kv_heads"));
  EXPECT_EQ(refusal("rope_scaling", Json()), "");
}

TEST(HfConfig, ReadsBothGenerationsOfRotarySettings) {
  Json json = language_config_to_hf(small_language());
  json["rope_theta"] = 77.0;
  EXPECT_EQ(language_config_from_hf(json, "").rope_theta, 77.0);
  json["rope_parameters"] = parse_json(R"({"rope_type": "default", "rope_theta": 88.0})", "");
  EXPECT_EQ(language_config_from_hf(json, "").rope_theta, 88.0);
}

}  // namespace
}  // namespace fathom
