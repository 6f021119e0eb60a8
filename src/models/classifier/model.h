// An encoder and a linear head over its pooled features. B batch, D width of the encoder, K classes.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "models/audio/model.h"
#include "models/classifier/config.h"
#include "models/language/model.h"
#include "models/swin/model.h"
#include "nn/forward_context.h"
#include "nn/linear.h"

namespace fathom {

class ClassifierImpl : public torch::nn::Module {
 public:
  /// Parameters are uninitialised: call `init_parameters` or load a checkpoint. Errors (kConfig): what the
  /// encoder's `validate` says, fewer than two classes.
  explicit ClassifierImpl(const ClassifierConfig& config);

  /// Scores of the classes from pooled features [B, D]: [B, K], in the features' type, or float32
  /// where products have a type of their own.
  at::Tensor logits(const at::Tensor& pooled_BD, const ForwardContext& context = {}) const;

  const ClassifierConfig& config() const { return config_; }
  Swin vision() const { return vision_; }        ///< empty unless the encoder is of images
  LanguageModel text() const { return text_; }   ///< … of texts
  AudioEncoder audio() const { return audio_; }  ///< … of sounds

 private:
  ClassifierConfig config_;
  Swin vision_{nullptr};
  LanguageModel text_{nullptr};
  AudioEncoder audio_{nullptr};
  Linear head_{nullptr};
};
TORCH_MODULE(Classifier);

}  // namespace fathom
