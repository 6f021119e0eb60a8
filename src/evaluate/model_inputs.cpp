#include "evaluate/model_inputs.h"

#include <algorithm>

#include "base/error.h"

namespace fathom {
namespace {

ModelInputs inputs_by_shape(const LoadedModel& model, const Tokenizer* tokenizer) {
  ModelInputs inputs;
  if (model.kind == ModelKind::kSwin) inputs.image.size = model.vision->config().image_size;
  if (model.kind == ModelKind::kDualTower) {
    inputs.image.size = model.dual_tower->config().vision.image_size;
    inputs.text.max_tokens = model.dual_tower->config().text.max_positions;
  }
  if (tokenizer && !tokenizer->token_id(inputs.text.end_token)) inputs.text.end_token = "";
  return inputs;
}

}  // namespace

void ModelInputs::fields(Fields& f) {
  f.group("image", image, "how pictures become the model's input");
  f.group("text", text, "how sentences become the model's input");
}

ModelInputs model_inputs(const LoadedModel& model, const Tokenizer* tokenizer, const std::string& folder) {
  const Json* record = model.extras.record.find("inputs");
  ModelInputs inputs = inputs_by_shape(model, tokenizer);
  if (record) {
    try {
      inputs = read_config<ModelInputs>({.values = *record, .source = folder + "/fathom.json"});
    } catch (const Error& error) {
      throw Error(ErrorKind::kCheckpoint, error.what());
    }
  }
  inputs.text.mask_probability = 0;  // a matter of training, which may name a token that others lack
  return inputs;
}

std::shared_ptr<const Tokenizer> model_tokenizer(const LoadedModel& model, const std::string& folder) {
  if (model.extras.tokenizer_json.empty()) return nullptr;
  return std::make_shared<const Tokenizer>(
      Tokenizer::from_json(model.extras.tokenizer_json, folder + "/tokenizer.json"));
}

}  // namespace fathom
