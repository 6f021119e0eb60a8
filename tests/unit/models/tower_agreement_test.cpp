// A tower's own config.json beside fathom.json.
#include "models/tower_agreement.h"

#include <gmock/gmock.h>

#include "model_fixture.h"

namespace fathom::tower_agreement_test {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

class TowerAgreement : public ::testing::Test {
 protected:
  TowerAgreement() {
    DualTowerConfig config = small_dual_tower();
    config.audio_tower = true;
    config.audio = {.bands = 8, .dim = 16, .layers = 1, .heads = 2, .max_frames = 20};
    DualTower model(config);
    fill_by_formula(model);
    save_model_folder(folder_ / "model", model);
  }
  /// What loading says once `edit` has changed one of the folder's files.
  std::string said(const std::string& file, const std::function<void(Json&)>& edit) const {
    const std::string path = folder_ / ("model/" + file);
    const Json whole = read_json_file(path);
    Json changed = whole;
    edit(changed);
    write_json_file(path, changed);
    std::string message = error_of([&] { load_model_folder(folder_ / "model"); }, ErrorKind::kCheckpoint);
    write_json_file(path, whole);
    return message;
  }
  std::string said(const std::string& file, const char* key, const Json& value) const {
    return said(file, [&](Json& json) { json[key] = value; });
  }

  TemporaryFolder folder_;
};

TEST_F(TowerAgreement, AContradictionNamesFileKeyAndBothValues) {
  const auto says = [](const char* place, const char* ours) {
    return AllOf(HasSubstr(place), HasSubstr("/model/fathom.json says "), EndsWith(ours));
  };
  EXPECT_THAT(said("text/config.json", "rope_theta", 500.0),
              says("/model/text/config.json: rope_theta is 500.0, but ", " 10000.0"));
  EXPECT_THAT(said("text/config.json", "hidden_size", 48), says(": hidden_size is 48, but ", " 24"));
  EXPECT_THAT(said("text/config.json", "model_type", "qwen2"), says("model_type is \"qwen2\"", "\"llama\""));
  EXPECT_THAT(said("text/config.json", [](Json& json) { json["fathom"]["pool"] = "mean"; }),
              says("text/config.json: fathom.pool is \"mean\", but ", " \"eos\""));
  EXPECT_THAT(said("text/config.json", [](Json& json) { json["rope_parameters"]["rope_theta"] = 7.0; }),
              says("rope_theta is 7.0", "10000.0"));
  EXPECT_THAT(said("vision/config.json", "window_size", 4),
              says("vision/config.json: window_size is 4, but ", " 3"));
  EXPECT_THAT(
      said("vision/preprocessor_config.json", "image_mean", Json::Array{0.5, 0.5, 0.5}),
      says("vision/preprocessor_config.json: image_mean is [0.5,0.5,0.5], but ", "[0.485,0.456,0.406]"));
  EXPECT_THAT(said("audio/config.json", "stride", 4), says("audio/config.json: stride is 4, but ", " 2"));
}

TEST_F(TowerAgreement, WhatSaysNothingOfTheShapeIsFine) {
  for (const char* file : {"text/config.json", "vision/config.json", "audio/config.json"}) {
    EXPECT_EQ(said(file, "transformers_version", "5.0.0"), "");
    EXPECT_EQ(said(file, "torch_dtype", Json::Object{{"a", Json()}}), "");
  }
  EXPECT_EQ(said("text/config.json",
                 [](Json& json) {
                   json["rms_norm_eps"] = Json();
                   std::erase_if(json.as_object(), [](const auto& entry) { return entry.first == "fathom"; });
                   json["rope_parameters"] = Json::Object{{"rope_type", "default"}, {"rope_theta", 10000.0}};
                 }),
            "");
  EXPECT_EQ(said("vision/config.json", "drop_path_rate", Json()), "");
  std::filesystem::remove(folder_ / "model/vision/config.json");
  EXPECT_EQ(error_of([&] { load_model_folder(folder_ / "model"); }, ErrorKind::kCheckpoint), "");
}

TEST_F(TowerAgreement, AFileThatIsNoObjectIsRefused) {
  EXPECT_THAT(said("audio/config.json", [](Json& json) { json = Json::Array{1}; }),
              HasSubstr("audio/config.json: expected an object, got array"));
}

}  // namespace
}  // namespace fathom::tower_agreement_test
