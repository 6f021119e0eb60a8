// An audio encoder: log-mel spectrogram, convolutional stem, transformer blocks. B batch, F mel bands, S
// frames, G sub-bands, T tokens of a clip (G a moment), D width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include "models/audio/config.h"
#include "nn/block.h"
#include "nn/forward_context.h"
#include "nn/init.h"
#include "nn/norm.h"
#include "nn/rope.h"
#include "nn/spectrogram_stem.h"

namespace fathom {

class AudioEncoderImpl : public torch::nn::Module, public HasInitialValues {
 public:
  /// Parameters are uninitialised: call `init_parameters` or load a checkpoint. Errors (kConfig) as
  /// `AudioEncoderConfig::validate`.
  explicit AudioEncoderImpl(const AudioEncoderConfig& config);

  struct Features {
    at::Tensor state_BTD;   ///< after the last norm, sub-band by sub-band; means nothing at padded places
    at::Tensor present_BT;  ///< bool: which tokens belong to the clip; undefined: all
  };
  /// `mel_BFS` as `LogMel` gives it, padded behind; `frames_B` int64 (undefined: all full). Errors
  /// (kRequest): another number of bands, clips longer than `max_frames`.
  Features features(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                    const ForwardContext& context = {});
  /// Mean of a clip's tokens: [B, D].
  at::Tensor pooled(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                    const ForwardContext& context = {});

  const AudioEncoderConfig& config() const { return config_; }
  void initialise(ParameterInit& init) const override;

 private:
  at::Tensor embed(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                   const ForwardContext& context) const;

  AudioEncoderConfig config_;
  SpectrogramStem stem_{nullptr};
  at::Tensor sub_band_GD_;  ///< tells sub-bands apart; undefined without them
  torch::nn::ModuleList blocks_;
  RMSNorm norm_{nullptr};
  Rope rope_;
};
TORCH_MODULE(AudioEncoder);

}  // namespace fathom
