#include "evaluate/model_inputs.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace fathom::model_inputs_test {
namespace {

LoadedModel tower_with_record(const Json& inputs) {
  DualTowerConfig config{.embed_dim = 8};
  config.vision = {.image_size = 32, .dim = 8, .depths = {1}, .heads = {2}, .window = 4};
  config.text = {.vocab_size = 31, .dim = 16, .layers = 1, .heads = 2, .max_positions = 16};
  LoadedModel model{.kind = ModelKind::kDualTower};
  model.dual_tower = DualTower(config);
  model.extras.record["inputs"] = inputs;
  return model;
}

TEST(ModelInputs, ASizeOf0IsTheModels) {
  ModelInputs inputs;
  inputs.text.max_tokens = 16;
  inputs.image.size = 0;
  EXPECT_EQ(model_inputs(tower_with_record(config_to_json(inputs)), nullptr, "tower").image.size, 32);
  inputs.image.size = 48;
  EXPECT_EQ(model_inputs(tower_with_record(config_to_json(inputs)), nullptr, "tower").image.size, 48);
  inputs.image.size = -1;
  try {
    model_inputs(tower_with_record(config_to_json(inputs)), nullptr, "tower");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    EXPECT_EQ(std::string(error.what()).find("tower/fathom.json: image.size: expected"), 0u) << error.what();
  }
}

}  // namespace
}  // namespace fathom::model_inputs_test
