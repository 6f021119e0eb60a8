// B clips, F bands, S frames, U spans of a clip, G sub-bands, T moments, D width.
#include "train/task/masked_audio.h"

#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "batch/loader.h"
#include "models/model_folder.h"
#include "tensor/random_keys.h"
#include "train/task/module_parameters.h"

namespace fathom {
namespace {

constexpr int64_t kSpanMaskStream = int64_t{3} << 40;

/// Numbers that a token stands for.
int64_t token_values(const AudioEncoderConfig& config) {
  return config.stride * config.bands / config.groups();
}

}  // namespace

void MaskedAudioConfig::fields(Fields& f) {
  f("mask_frames", mask_frames, "frames (10 ms each) of a hidden span", {.low = 1, .high = 3000});
  f("mask_ratio", mask_ratio, "share of a clip's spans that are hidden", {.low = 0.01, .high = 1});
}

void check_spans(const MaskedAudioConfig& config, int64_t clip_frames) {
  if (config.mask_frames > clip_frames)
    fail(ErrorKind::kConfig,
         "masked_audio.mask_frames: {} is more than the {} frames of the longest clip "
         "(data.audio.max_seconds)",
         config.mask_frames, clip_frames);
}

at::Tensor draw_spans(const at::Tensor& key_B, const at::Tensor& frames_B, int64_t num_frames,
                      const MaskedAudioConfig& config) {
  const int64_t spans = (num_frames + config.mask_frames - 1) / config.mask_frames;
  const at::Tensor own_B1 =
      (frames_B + (config.mask_frames - 1)).div(config.mask_frames, "floor").unsqueeze(1);
  const at::Tensor place_U = at::arange(spans, frames_B.options());
  at::Tensor draw_BU = keyed_uniform(key_B, {spans}, kSpanMaskStream);
  draw_BU = draw_BU.masked_fill(place_U.unsqueeze(0).ge(own_B1), 2);  // behind all draws
  constexpr bool kStable = true, kDescending = false;
  const at::Tensor rank_BU =
      draw_BU.argsort(kStable, int64_t{1}, kDescending).argsort(kStable, int64_t{1}, kDescending);
  const at::Tensor wanted_B1 = (own_B1.to(at::kDouble) * config.mask_ratio).ceil().to(at::kLong);
  const at::Tensor frame_S = at::arange(num_frames, frames_B.options());
  return rank_BU.lt(wanted_B1)
      .repeat_interleave(config.mask_frames, 1)
      .narrow(1, 0, num_frames)
      .logical_and(frame_S.unsqueeze(0).lt(frames_B.unsqueeze(1)));
}

MaskedAudioModelImpl::MaskedAudioModelImpl(const AudioEncoderConfig& config) {
  audio_ = register_module("audio", AudioEncoder(config));
  decoder_ = register_module(
      "decoder", Linear(LinearOptions{.in = config.dim,
                                      .out = token_values(config),
                                      .init_deviation = 1.0 / std::sqrt(static_cast<double>(config.dim))}));
  mask_token_F_ = register_parameter("mask_token", at::empty({config.bands}));
}

void MaskedAudioModelImpl::initialise(ParameterInit& init) const {
  init.normal("mask_token", 0.02);
}

at::Tensor MaskedAudioModelImpl::reconstruct(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                                             const at::Tensor& mask_BS, const ForwardContext& context) {
  const AudioEncoderConfig& config = audio_->config();
  const at::Tensor heard_BFS =
      at::where(mask_BS.unsqueeze(1), mask_token_F_.unsqueeze(1).to(mel_BFS.scalar_type()), mel_BFS);
  const at::Tensor state_BTD = audio_->features(heard_BFS, frames_B, context).state_BTD;
  const at::Tensor drawn = decoder_->forward(state_BTD, context, Feeds::kLoss);
  const at::Tensor wide = drawn.to(drawn.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const int64_t clips = mel_BFS.size(0), groups = config.groups();
  return wide.view({clips, groups, -1, config.stride, config.bands / groups})
      .permute({0, 1, 4, 2, 3})
      .reshape({clips, config.bands, -1})
      .narrow(2, 0, mel_BFS.size(2));
}

at::Tensor MaskedAudioModelImpl::hidden_error(const at::Tensor& mel_BFS, const at::Tensor& frames_B,
                                              const at::Tensor& mask_BS, const ForwardContext& context) {
  const at::Tensor drawn_BFS = reconstruct(mel_BFS, frames_B, mask_BS, context);
  const at::Tensor error_BFS = (mel_BFS.to(drawn_BFS.scalar_type()) - drawn_BFS).abs();
  // A select and not a product: what is drawn at padded places means nothing.
  const at::Tensor sum_B =
      at::where(mask_BS.unsqueeze(1), error_BFS, at::zeros({}, error_BFS.options())).sum({1, 2});
  return sum_B / (mask_BS.sum(1).clamp_min(1) * mel_BFS.size(1)).to(sum_B.scalar_type());
}

double masked_audio_error(MaskedAudioModel model, const MaskedAudioConfig& config,
                          std::shared_ptr<const SampleSource> source, const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  model->eval();
  Loader loader(one_pass(source, options.batch_size, options.workers));
  double sum = 0;
  while (auto batch = loader.next()) {
    const at::Tensor key_B = make_sample_keys(batch->index_B, 0, 0).to(options.device);
    const Batch here = to_device(std::move(*batch), options.device);
    const at::Tensor mask_BS = draw_spans(key_B, here.frames_B, here.mel_BFS.size(2), config);
    sum += model->hidden_error(here.mel_BFS, here.frames_B, mask_BS, options.context()).sum().item<double>();
  }
  return sum / static_cast<double>(source->size());
}

NamedParameters MaskedAudioTask::parameters() const {
  return module_parameters(*setup_.model);
}

at::Tensor MaskedAudioTask::loss(const MicroBatch& micro_batch, const StepContext& step) {
  const Batch& batch = micro_batch.batch;
  FATHOM_CHECK(batch.mel_BFS.defined() && micro_batch.forward.key_B.defined(),
               "[masked_audio] expected sounds and keys in every batch");
  const at::Tensor mask_BS =
      draw_spans(micro_batch.forward.key_B, batch.frames_B, batch.mel_BFS.size(2), setup_.config);
  return setup_.model->hidden_error(batch.mel_BFS, batch.frames_B, mask_BS, micro_batch.forward).sum() /
         static_cast<double>(step.global_samples);
}

void MaskedAudioTask::save_model(const std::string& folder, const Json& record) {
  save_model_folder(folder, setup_.model->audio(), {.record = record});
}

double MaskedAudioTask::flops_per_sample() const {
  const AudioEncoderConfig& config = setup_.model->audio()->config();
  const int64_t tokens = config.num_moments(setup_.num_frames) * config.groups();
  const double decoder = 2.0 * static_cast<double>(tokens * config.dim * token_values(config));
  return 3.0 * (static_cast<double>(forward_flops(config, 1, setup_.num_frames)) + decoder);
}

}  // namespace fathom
