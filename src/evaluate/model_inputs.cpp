#include "evaluate/model_inputs.h"

#include <torch/torch.h>

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
    inputs.audio.bands = model.dual_tower->config().audio.bands;
  }
  if (model.kind == ModelKind::kFusion) inputs.image.size = model.fusion->config().vision.image_size;
  if (model.kind == ModelKind::kAudio) inputs.audio.bands = model.audio->config().bands;
  if (model.kind == ModelKind::kClassifier) {
    const ClassifierConfig& config = model.classifier->config();
    inputs.image.size = config.vision.image_size;
    inputs.audio.bands = config.audio.bands;
    inputs.text.max_tokens = config.text.max_positions;
  }
  if (tokenizer && !tokenizer->token_id(inputs.text.end_token)) inputs.text.end_token = "";
  return inputs;
}

void require_positions(const LoadedModel& model, const ModelInputs& inputs, const std::string& folder) {
  const bool classifies = model.kind == ModelKind::kClassifier;
  const AudioEncoder audio = classifies                            ? model.classifier->audio()
                             : model.kind == ModelKind::kDualTower ? model.dual_tower->audio()
                                                                   : AudioEncoder(nullptr);
  if (audio) {
    const AudioEncoderConfig& config = audio->config();
    if (inputs.audio.bands != config.bands || inputs.audio.max_frames() > config.max_frames)
      fail(ErrorKind::kCheckpoint, "{}/fathom.json: audio: {} bands and {} frames, the model takes {} and {}",
           folder, inputs.audio.bands, inputs.audio.max_frames(), config.bands, config.max_frames);
  }
  const bool reads = model.kind == ModelKind::kDualTower || (classifies && model.classifier->text());
  if (!reads) return;
  const int64_t positions = classifies ? model.classifier->config().text.max_positions
                                       : model.dual_tower->config().text.max_positions;
  if (inputs.text.max_tokens > positions)
    fail(ErrorKind::kCheckpoint, "{}/fathom.json: text.max_tokens: {} is more than the model's {} positions",
         folder, inputs.text.max_tokens, positions);
}

}  // namespace

void ModelInputs::fields(Fields& f) {
  f.group("image", image, "how pictures become the model's input");
  f.group("audio", audio, "how sounds become the model's input");
  f.group("text", text, "how sentences become the model's input");
  f.group("question", question, "how questions and answers become the model's input");
}

ModelInputs model_inputs(const LoadedModel& model, const Tokenizer* tokenizer, const std::string& folder) {
  const Json* record = model.extras.record.find("inputs");
  ModelInputs inputs = inputs_by_shape(model, tokenizer);
  if (record) {
    const int64_t own_size = inputs.image.size, own_bands = inputs.audio.bands;
    inputs = with_error_kind(ErrorKind::kCheckpoint, [&] {
      return read_config<ModelInputs>({.values = *record, .source = folder + "/fathom.json"});
    });
    if (inputs.image.size == 0) inputs.image.size = own_size;
    if (inputs.audio.bands == 0) inputs.audio.bands = own_bands;
    require_positions(model, inputs, folder);
  }
  inputs.text.mask_probability = 0;  // a matter of training, which may name a token that others lack
  return inputs;
}

std::shared_ptr<const Tokenizer> model_tokenizer(const LoadedModel& model, const std::string& folder) {
  if (model.extras.tokenizer_json.empty()) return nullptr;
  return std::make_shared<const Tokenizer>(
      Tokenizer::from_json(model.extras.tokenizer_json, folder + "/tokenizer.json"));
}

void require_known_tokens(const at::Tensor& tokens_BT, int64_t vocab_size) {
  const int64_t largest = tokens_BT.numel() == 0 ? -1 : tokens_BT.max().item<int64_t>();
  if (largest >= vocab_size)
    fail(ErrorKind::kCheckpoint,
         "the text has token {}, outside the model's vocabulary of {}: its tokenizer is another model's",
         largest, vocab_size);
}

}  // namespace fathom
