// Masked audio modelling: an audio encoder learns to fill in what is hidden of sounds.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <functional>
#include <memory>
#include <string>

#include "base/config.h"
#include "batch/sample_source.h"
#include "evaluate/options.h"
#include "models/audio/model.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "train/task.h"

namespace fathom {

struct MaskedAudioConfig {
  int64_t mask_frames = 20;
  double mask_ratio = 0.5;

  void fields(Fields& f);
};

/// Errors (kConfig): spans that are longer than the longest clip, of `clip_frames`.
void check_spans(const MaskedAudioConfig& config, int64_t clip_frames);

/// Which frames of each clip are hidden, bool [B, S]: whole spans of `mask_frames` frames (the last of a clip
/// may be shorter), ⌈ratio · spans⌉ of each clip, drawn by its key (int64 [B]) among its own `frames_B`.
/// `num_frames` is S; how far a clip is padded changes nothing.
at::Tensor draw_spans(const at::Tensor& key_B, const at::Tensor& frames_B, int64_t num_frames,
                      const MaskedAudioConfig& config);

/// An audio encoder that hears a learned frame in place of hidden ones, and one linear layer from each token
/// to the part of the spectrogram that it stands for. Hidden before the convolutions, frames are seen through
/// none of them. Source: Liu et al., "Mockingjay: unsupervised speech representation learning with deep
/// bidirectional transformer encoders", ICASSP 2020, with the mask token of SimMIM
/// (train/task/masked_image.h).
class MaskedAudioModelImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit MaskedAudioModelImpl(const AudioEncoderConfig& config);

  /// The whole spectrogram as the decoder draws it: [B, F, S], float32 or wider.
  at::Tensor reconstruct(const at::Tensor& mel_BFS, const at::Tensor& frames_B, const at::Tensor& mask_BS,
                         const ForwardContext& context = {});
  /// Of each clip the mean over its hidden frames and their bands of |spectrogram − reconstruction|: [B].
  at::Tensor hidden_error(const at::Tensor& mel_BFS, const at::Tensor& frames_B, const at::Tensor& mask_BS,
                          const ForwardContext& context = {});

  AudioEncoder audio() const { return audio_; }
  void initialise(ParameterInit& init) const override;

 private:
  AudioEncoder audio_{nullptr};
  Linear decoder_{nullptr};
  at::Tensor mask_token_F_;
};
TORCH_MODULE(MaskedAudioModel);

/// The mean over clips of `hidden_error`, with masks that depend on the sample's place alone.
double masked_audio_error(MaskedAudioModel model, const MaskedAudioConfig& config,
                          std::shared_ptr<const SampleSource> source, const EvaluateOptions& options);

/// Trains the encoder; what is saved is an audio encoder alone, which other recipes begin with (`[[init]]`).
class MaskedAudioTask : public Task {
 public:
  struct Setup {
    MaskedAudioModel model{nullptr};
    MaskedAudioConfig config;
    int64_t num_frames = 0;                             ///< of the longest clip, for figures
    std::function<Metrics(MaskedAudioModel)> evaluate;  ///< may be empty
  };
  explicit MaskedAudioTask(Setup setup) : setup_(std::move(setup)) {}

  NamedParameters parameters() const override;
  std::vector<NamedGate> gates() const override { return gates_of(*setup_.model); }
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  Metrics evaluate() override { return setup_.evaluate ? setup_.evaluate(setup_.model) : Metrics{}; }
  std::string default_metric() const override { return "masked_l1"; }
  bool launches_alike() const override { return true; }
  void save_model(const std::string& folder, const Json& record) override;
  double flops_per_sample() const override;

 private:
  Setup setup_;
};

}  // namespace fathom
