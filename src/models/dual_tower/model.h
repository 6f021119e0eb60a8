// Dual tower: an image encoder and a text encoder that meet in one space; an audio encoder may be a third.
// Source: Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021.
// B batch, T tokens, F mel bands, S frames, D embed_dim.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "models/audio/model.h"
#include "models/dual_tower/config.h"
#include "models/language/model.h"
#include "models/swin/model.h"
#include "nn/adapter.h"
#include "nn/forward_context.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "nn/modal_attention.h"

namespace fathom {

class DualTowerImpl : public torch::nn::Module, public HasInitialValues {
 public:
  /// Parameters are uninitialised: call `init_parameters` or load a checkpoint.
  explicit DualTowerImpl(const DualTowerConfig& config);

  /// Unit-length float32 embeddings, [B, D].
  at::Tensor embed_image(const at::Tensor& image_BCHW, const ForwardContext& context = {});
  /// The same from `vision()`'s pooled features.
  at::Tensor project_image(const at::Tensor& pooled_BD, const ForwardContext& context = {}) const;
  at::Tensor embed_text(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                        const ForwardContext& context = {});

  /// Of clips as `AudioEncoderImpl::pooled` takes them. REQUIRES config().audio_tower.
  at::Tensor embed_sound(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                         const ForwardContext& context = {});

  /// Embeddings, and with `config().region` also what region scores compare: regions of the last stage,
  /// unpadded states of the tokens.
  PairSide encode_image(const at::Tensor& image_BCHW, const ForwardContext& context = {});
  /// The same from `vision()`'s features.
  PairSide encode_regions(const at::Tensor& region_BPD, const ForwardContext& context = {}) const;
  PairSide encode_text(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                       const ForwardContext& context = {});
  /// The embeddings alone: region scores are of pictures and texts.
  PairSide encode_sound(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                        const ForwardContext& context = {});

  /// What cosine similarities are multiplied with: exp of the learned parameter, at most 100, with a gradient
  /// beyond that too. Scalar, float32.
  at::Tensor logit_scale() const;
  /// Learned offset of the logits (scalar, float32), undefined unless `config().logit_bias`.
  at::Tensor logit_bias() const;

  /// What is taken off embeddings of pictures, texts and, where there are any, sounds: [D] each, without
  /// gradients (measured, not learned); empty unless `config().centred`.
  std::vector<at::Tensor> centres() const;

  void initialise(ParameterInit& init) const override;
  const DualTowerConfig& config() const { return config_; }
  Swin vision() const { return vision_; }
  ModalAttention region() const { return region_; }  ///< empty without region scores
  LanguageModel text() const { return text_; }
  AudioEncoder audio() const { return audio_; }  ///< empty without a third tower

 private:
  /// [B, P, D]; of a picture and its mirror image where the configuration says so.
  at::Tensor region_features(const at::Tensor& image_BCHW, const ForwardContext& context);

  at::Tensor project_text(const at::Tensor& pooled_BD, const ForwardContext& context) const;

  DualTowerConfig config_;
  Swin vision_{nullptr};
  LanguageModel text_{nullptr};
  AudioEncoder audio_{nullptr};
  Linear image_projection_{nullptr};
  Linear text_projection_{nullptr};
  Linear audio_projection_{nullptr};
  Adapter image_adapter_{nullptr};
  Adapter text_adapter_{nullptr};
  Adapter audio_adapter_{nullptr};
  ModalAttention region_{nullptr};
  at::Tensor log_scale_;
  at::Tensor bias_;
  at::Tensor image_centre_, text_centre_, audio_centre_;  ///< [D]; undefined: none
};
TORCH_MODULE(DualTower);

}  // namespace fathom
