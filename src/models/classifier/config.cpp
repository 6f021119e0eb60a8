#include "models/classifier/config.h"

#include "base/error.h"

namespace fathom {

int64_t ClassifierConfig::encoder_dim() const {
  switch (encoder) {
    case EncoderKind::kImage:
      return vision.output_dim();
    case EncoderKind::kText:
      return text.dim;
    case EncoderKind::kAudio:
      return audio.dim;
  }
  return 0;
}

void ClassifierConfig::fields(Fields& f) {
  f.choice("encoder", encoder, "what is classified: sounds, images or texts; its table follows",
           {{"audio", EncoderKind::kAudio}, {"image", EncoderKind::kImage}, {"text", EncoderKind::kText}});
  if (encoder == EncoderKind::kAudio) f.group("audio", audio, "the audio encoder");
  if (encoder == EncoderKind::kImage) f.group("vision", vision, "the image encoder, a Swin transformer");
  if (encoder == EncoderKind::kText) f.group("text", text, "the text encoder, a transformer");
  f("classes", classes, "names of the classes, in order; empty takes those of the training data");
  f("head_dropout", head_dropout, "share of the encoder's features dropped before the head",
    {.low = 0, .high = 0.95});
}

void ClassifierConfig::validate() const {
  if (encoder == EncoderKind::kAudio) audio.validate();
  if (encoder == EncoderKind::kImage) vision.validate();
  if (encoder == EncoderKind::kText) text.validate();
}

int64_t parameter_count(const ClassifierConfig& config) {
  const int64_t head = (config.encoder_dim() + 1) * static_cast<int64_t>(config.classes.size());
  if (config.encoder == EncoderKind::kImage) return head + parameter_count(config.vision);
  if (config.encoder == EncoderKind::kText) return head + parameter_count(config.text);
  return head + parameter_count(config.audio);
}

int64_t forward_flops(const ClassifierConfig& config, int64_t length) {
  if (config.encoder == EncoderKind::kImage) return forward_flops(config.vision, 1);
  if (config.encoder == EncoderKind::kAudio) return forward_flops(config.audio, 1, length);
  LanguageModelConfig headless = config.text;
  headless.vocab_size = 0;
  return forward_flops(headless, 1, length);
}

}  // namespace fathom
