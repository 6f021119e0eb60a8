// Model folders: what is saved comes back, what does not fit is listed.
#include "models/model_folder.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <functional>

#include "full_disk.h"
#include "killed_at_every_call.h"
#include "model_fixture.h"
#include "models/language/hf_map.h"
#include "models/weight_map.h"

namespace fathom::folder_test {
namespace {

namespace fs = std::filesystem;
using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

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

TEST(ModelFolder, KeepsConvolutionsThatPublishedModelsLack) {
  const TemporaryFolder folder;
  DualTowerConfig config = small_dual_tower();
  config.vision.local_mixing = 3;
  config.vision.mlp_mixing = 5;
  config.vision.convolution_stem = true;
  DualTower model(config);
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  const auto loaded = load_model_folder(folder / "model");
  expect_same_parameters(model, loaded.dual_tower);
  expect_same_parameters(model->vision(), load_model_folder(folder / "model/vision").vision);
  EXPECT_EQ(config_to_json(loaded.dual_tower->config()), config_to_json(config));
  fs::remove(folder / "model/vision/fathom.safetensors");
  EXPECT_THAT(load_error(folder / "model"), HasSubstr("fathom.safetensors"));
}

TEST(ModelFolder, KeepsRegionScoresAndAdapters) {
  const TemporaryFolder folder;
  DualTowerConfig config = small_dual_tower();
  config.region = RegionScore::kAttention;
  config.adapters = 3;
  DualTower model(config);
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  const auto loaded = load_model_folder(folder / "model");
  expect_same_parameters(model, loaded.dual_tower);
  EXPECT_EQ(config_to_json(loaded.dual_tower->config()), config_to_json(config));
}

TEST(ModelFolder, KeepsAThirdTower) {
  const TemporaryFolder folder;
  DualTowerConfig config = small_dual_tower();
  config.audio_tower = true;
  config.audio = {.bands = 8, .dim = 16, .layers = 1, .heads = 2, .max_frames = 20};
  config.adapters = 4;
  DualTower model(config);
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  const LoadedModel loaded = load_model_folder(folder / "model");
  expect_same_parameters(model, loaded.dual_tower);
  EXPECT_EQ(config_to_json(loaded.dual_tower->config()), config_to_json(config));
  const LoadedModel alone = load_model_folder(folder / "model/audio");
  ASSERT_EQ(alone.kind, ModelKind::kAudio);
  expect_same_parameters(model->audio(), alone.audio);
  std::filesystem::remove_all(folder / "model/audio");
  EXPECT_THROW(load_model_folder(folder / "model"), Error);
  int64_t counted = 0;
  for (const at::Tensor& parameter : model->parameters()) counted += parameter.numel();
  EXPECT_EQ(parameter_count(config), counted);
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
  EXPECT_THAT(load_error(folder / "model"), AllOf(HasSubstr("in 43 places"), HasSubstr("and 35 more")));
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

/// The best model of a run is replaced while a kill may come at any moment: one of the two is there, whole.
TEST(ModelFolder, ASaveKilledAtAnySystemCallLeavesAWholeModel) {
  const TemporaryFolder folder(parent_in_memory());
  const std::string path = folder / "model";
  Swin former(small_swin()), newer(small_swin());
  fill_by_formula(former);
  fill_by_formula(newer);
  {
    const at::NoGradGuard no_grad;
    newer->named_parameters().front().value().add_(1);
  }
  const auto same = [](const Swin& a, const Swin& b) {
    const auto theirs = b->named_parameters();
    for (const auto& item : a->named_parameters())
      if (!at::equal(item.value(), theirs[item.key()])) return false;
    return true;
  };
  int kept = 0, replaced = 0;
  const auto calls =
      kill_at_every_call([&] { save_model_folder(path, former); }, [&] { save_model_folder(path, newer); },
                         [&] {
                           const Swin found = load_model_folder(path).vision;
                           kept += same(found, former);
                           replaced += same(found, newer);
                         });
  if (!calls) GTEST_SKIP() << "processes may not be traced here";
  EXPECT_EQ(kept + replaced, *calls + 1);
  EXPECT_GT(kept, 15);
  EXPECT_GT(replaced, 3);
  EXPECT_FALSE(fs::exists(folder / "model.tmp"));
}

TEST(ModelFolder, AFullDiskLeavesTheFormerModelAndNothingElse) {
  const TemporaryFolder folder;
  Swin model(small_swin());
  fill_by_formula(model);
  save_model_folder(folder / "model", model);
  const std::string message = [&] {
    const FullDisk full(4096);
    return error_of([&] { save_model_folder(folder / "model", model); }, ErrorKind::kData);
  }();
  EXPECT_THAT(message, HasSubstr("model.tmp/model.safetensors: cannot write: "));
  expect_same_parameters(model, load_model_folder(folder / "model").vision);
  EXPECT_FALSE(fs::exists(folder / "model.tmp"));
}

/// Who writes a config.json may ask for any amount of memory; the weights beside it say how much there is to
/// it.
TEST(ModelFolder, AModelFarLargerThanItsWeightsIsRefusedUnmade) {
  const TemporaryFolder folder;
  const auto refused = [&](const auto& model, const std::string& file,
                           const std::function<void(Json&)>& grow) {
    save_model_folder(folder / "model", model);
    Json json = read_json_file(folder / ("model/" + file));
    grow(json);
    write_json_file(folder / ("model/" + file), json);
    EXPECT_THAT(load_error(folder / "model"), AllOf(HasSubstr("model/" + file + ": a model of "),
                                                    HasSubstr(" parameters, the weights beside it hold ")));
  };
  LanguageModel language(small_language());
  Swin vision(small_swin());
  DualTower tower(small_dual_tower());
  fill_by_formula(language);
  fill_by_formula(vision);
  fill_by_formula(tower);
  refused(language, "config.json", [](Json& json) {
    json["hidden_size"] = 1 << 16;
    json["num_hidden_layers"] = 1000;
  });
  refused(vision, "config.json", [](Json& json) { json["embed_dim"] = 1 << 14; });
  refused(tower, "fathom.json", [](Json& json) { json["config"]["text"]["mlp_dim"] = 1 << 18; });
  refused(tower, "fathom.json", [](Json& json) { json["config"]["vision"]["dim"] = 1 << 14; });
}

TEST(ModelFolder, NamesTheFileAndKeyOfAWrongSetting) {
  const TemporaryFolder folder;
  Swin model(small_swin());
  fill_by_formula(model);
  const auto refusal = [&](const std::string& file, const char* key, const Json& value) {
    save_model_folder(folder / "model", model);
    Json json = read_json_file(folder / ("model/" + file));
    json[key] = value;
    write_json_file(folder / ("model/" + file), json);
    const std::string message = load_error(folder / "model");
    EXPECT_EQ(message.find((folder / "model/") + file + ": "), 0u) << message;
    EXPECT_EQ(message.find(file), message.rfind(file)) << "once: " << message;
    return message;
  };
  EXPECT_THAT(refusal("config.json", "depths", "two"), HasSubstr("depths must be a list of integers"));
  EXPECT_THAT(refusal("config.json", "num_heads", Json::Array{2, 2.5}),
              HasSubstr("num_heads must be a list"));
  EXPECT_THAT(refusal("config.json", "window_size", Json()), HasSubstr("window_size must be an integer"));
  EXPECT_THAT(refusal("config.json", "mlp_ratio", "4"), HasSubstr("mlp_ratio must be a number"));
  EXPECT_THAT(refusal("config.json", "qkv_bias", 1), HasSubstr("qkv_bias must be true or false"));
  EXPECT_THAT(refusal("config.json", "num_channels", 1), HasSubstr("num_channels"));
  EXPECT_THAT(refusal("config.json", "window_size", 99), HasSubstr("window: expected a value from 1 to 32"));
  const char* preprocessor = "preprocessor_config.json";
  EXPECT_THAT(refusal(preprocessor, "image_mean", 0.5), HasSubstr("image_mean must be a list of numbers"));
  EXPECT_THAT(refusal(preprocessor, "image_std", Json::Array{1.0, "x", 1.0}), HasSubstr("image_std must be"));
  EXPECT_THAT(refusal(preprocessor, "image_std", Json::Array{0.2, 0.0, 0.2}), HasSubstr("more than 0"));
  EXPECT_THAT(refusal(preprocessor, "image_mean", Json::Array{0.2}),
              HasSubstr("three values each, got 1 and 3"));
  write_file_atomically(folder / "model/config.json", "{");
  EXPECT_THAT(load_error(folder / "model"), HasSubstr("config.json:1:2: not valid JSON"));
}

TEST(ModelFolder, RefusesWhatIsNotOurs) {
  const TemporaryFolder folder;
  EXPECT_THAT(load_error(folder / "nowhere"), HasSubstr("no such model folder"));
  fs::create_directories(folder / "empty");
  EXPECT_THAT(load_error(folder / "empty"), HasSubstr("no model"));
  fs::create_directories(folder / "gpt2");
  write_file_atomically(folder / "gpt2/config.json", R"({"model_type": "gpt2"})");
  EXPECT_THAT(load_error(folder / "gpt2"), HasSubstr("model_type 'gpt2'"));
  fs::create_directories(folder / "tower");
  for (const char* record : {R"({"kind": "dual_tower"})", R"({"kind": "dual_tower", "config": [1]})"}) {
    write_file_atomically(folder / "tower/fathom.json", record);
    EXPECT_THAT(load_error(folder / "tower"), HasSubstr("fathom.json: no \"config\" of a dual tower"));
  }
  write_file_atomically(folder / "tower/fathom.json",
                        R"({"kind": "dual_tower", "config": {"embed_dim": 0}})");
  EXPECT_THAT(load_error(folder / "tower"), HasSubstr("fathom.json: embed_dim: expected a value from 1"));
  write_file_atomically(folder / "tower/fathom.json", R"({"kind": "giraffe"})");
  EXPECT_THAT(load_error(folder / "tower"), HasSubstr("an unknown kind of model \"giraffe\""));
  for (const char* record : {"{}", "[]"}) {
    write_file_atomically(folder / "tower/fathom.json", record);
    EXPECT_THAT(load_error(folder / "tower"), HasSubstr("tower/fathom.json: no \"kind\" of model"));
  }
  save_model_folder(folder / "swin", Swin(small_swin()));
  write_file_atomically(folder / "swin/tokenizer.json", "");
  EXPECT_THAT(load_error(folder / "swin"), HasSubstr("swin/tokenizer.json: an empty file"));
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
}  // namespace fathom::folder_test
