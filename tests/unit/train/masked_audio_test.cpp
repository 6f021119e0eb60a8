// What masks must be, that hidden sound stays hidden, and that the encoder learns from it.
#include "train/task/masked_audio.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "models/model_folder.h"
#include "step_fixture.h"
#include "temporary_folder.h"
#include "tensor/random_keys.h"

namespace fathom::masked_audio_test {
namespace {

AudioEncoderConfig small(AudioFrontEnd front_end = AudioFrontEnd::kMel) {
  return {.front_end = front_end,
          .bands = 12,
          .sub_bands = 3,
          .dim = 16,
          .layers = 2,
          .heads = 2,
          .max_frames = 60};
}

TEST(Spans, HideWholeSpansOfTheShareOfEachClip) {
  const MaskedAudioConfig config{.mask_frames = 10, .mask_ratio = 0.5};
  const at::Tensor key = make_sample_keys(torch::arange(40), 3, 4);
  const at::Tensor frames = torch::full({40}, 60, at::kLong);
  frames[1] = 25;
  frames[2] = 1;
  const at::Tensor mask_BS = draw_spans(key, frames, 60, config);
  ASSERT_EQ(mask_BS.sizes(), at::IntArrayRef({40, 60}));
  const at::Tensor span = mask_BS.view({40, 6, 10}).to(at::kLong).sum(2);
  for (int64_t clip = 3; clip < 40; ++clip) {
    EXPECT_TRUE(span[clip].eq(0).logical_or(span[clip].eq(10)).all().item<bool>());
    EXPECT_EQ(span[clip].eq(10).sum().item<int64_t>(), 3) << "ceil(0.5 * 6)";
  }
  EXPECT_EQ(span[1].ne(0).sum().item<int64_t>(), 2) << "ceil(0.5 * 3)";
  EXPECT_FALSE(mask_BS[1].slice(0, 25).any().item<bool>()) << "nothing behind the clip's end";
  EXPECT_EQ(mask_BS[2].sum().item<int64_t>(), 1) << "a clip of one frame";
  EXPECT_TRUE(at::equal(draw_spans(key, frames, 75, config).slice(1, 0, 60), mask_BS)) << "padding";
  EXPECT_TRUE(at::equal(draw_spans(key.slice(0, 20), frames.slice(0, 20), 60, config), mask_BS.slice(0, 20)));
  EXPECT_FALSE(at::equal(mask_BS[3], mask_BS[4]));
  EXPECT_GT(span.slice(0, 3).eq(10).to(at::kDouble).mean(0).min().item<double>(), 0.2) << "every place";
}

class MaskedAudio : public ::testing::TestWithParam<AudioFrontEnd> {
 protected:
  MaskedAudio() {
    init_parameters(*model_, 1);
    model_->to(at::kDouble);
    torch::manual_seed(2);
    batch_.index_B = torch::arange(6);
    batch_.mel_BFS = torch::randn({6, 12, 60}, at::kDouble);
    batch_.frames_B = torch::tensor({60, 33, 60, 12, 47, 60}, at::kLong);
    mask_BS_ = draw_spans(make_sample_keys(batch_.index_B, 5, 6), batch_.frames_B, 60, config_);
  }
  at::Tensor error(const at::Tensor& mel_BFS) {
    return model_->hidden_error(mel_BFS, batch_.frames_B, mask_BS_).detach();
  }
  MaskedAudioConfig config_{.mask_frames = 8, .mask_ratio = 0.5};
  MaskedAudioModel model_{small(GetParam())};
  Batch batch_;
  at::Tensor mask_BS_;
};

TEST_P(MaskedAudio, DrawsFromWhatIsHeardAlone) {
  const at::Tensor drawn = model_->reconstruct(batch_.mel_BFS, batch_.frames_B, mask_BS_).detach();
  ASSERT_EQ(drawn.sizes(), batch_.mel_BFS.sizes());
  const at::Tensor other = batch_.mel_BFS.masked_fill(mask_BS_.unsqueeze(1), 9);
  EXPECT_TRUE(at::equal(model_->reconstruct(other, batch_.frames_B, mask_BS_), drawn))
      << "nothing shows through";
  const at::Tensor louder = batch_.mel_BFS.masked_fill(mask_BS_.unsqueeze(1).logical_not(), 9);
  EXPECT_FALSE(at::allclose(model_->reconstruct(louder, batch_.frames_B, mask_BS_), drawn));
}

TEST_P(MaskedAudio, CountsHiddenFramesAlone) {
  const at::Tensor drawn = model_->reconstruct(batch_.mel_BFS, batch_.frames_B, mask_BS_).detach();
  const at::Tensor got = error(batch_.mel_BFS);
  for (int64_t clip = 0; clip < 6; ++clip) {
    double sum = 0;
    int64_t count = 0;
    for (int64_t frame = 0; frame < 60; ++frame) {
      if (!mask_BS_[clip][frame].item<bool>()) continue;
      sum +=
          (batch_.mel_BFS[clip].select(1, frame) - drawn[clip].select(1, frame)).abs().sum().item<double>();
      count += 12;
    }
    EXPECT_NEAR(got[clip].item<double>(), sum / static_cast<double>(count), 1e-9);
  }
}

TEST_P(MaskedAudio, PutsBandsAndFramesWhereTheyBelong) {
  // With all weights of the decoder 0, its bias is what each place of a token is drawn as.
  const torch::NoGradGuard no_grad;
  auto parameters = model_->named_parameters();
  parameters["decoder.weight"].zero_();
  parameters["decoder.bias"].copy_(torch::arange(parameters["decoder.bias"].numel()));
  const at::Tensor drawn = model_->reconstruct(batch_.mel_BFS, batch_.frames_B, mask_BS_);
  const int64_t bands = GetParam() == AudioFrontEnd::kMel ? 12 : 4;  // of a token
  for (const int64_t frame : {0, 1, 17})
    for (const int64_t band : {0, 5, 11})
      EXPECT_EQ(drawn[0][band][frame].item<double>(), static_cast<double>(frame % 2 * bands + band % bands));
}

TEST_P(MaskedAudio, LearnsInEveryPart) {
  MaskedAudioTask task({.model = model_, .config = config_, .num_frames = 60});
  const testing::StepResult whole = testing::run_step(task, testing::split(batch_, 6));
  EXPECT_NEAR(whole.loss, error(batch_.mel_BFS).mean().item<double>(), 1e-9);
  for (const auto& [name, gradient] : whole.gradients)
    EXPECT_GT(gradient.abs().max().item<double>(), 0) << name;
  EXPECT_TRUE(whole.gradients.contains("mask_token"));
  testing::expect_equal(testing::run_step(task, testing::split(batch_, 2)), whole, 1e-10);
}

TEST_P(MaskedAudio, LeavesAnAudioEncoder) {
  const TemporaryFolder folder;
  model_->to(at::kFloat);
  MaskedAudioTask task({.model = model_, .config = config_});
  task.save_model(folder / "model", Json::object());
  const LoadedModel loaded = load_model_folder(folder / "model");
  ASSERT_EQ(loaded.kind, ModelKind::kAudio);
  const auto expected = model_->audio()->named_parameters();
  for (const auto& entry : loaded.audio->named_parameters())
    EXPECT_TRUE(at::equal(entry.value(), *expected.find(entry.key()))) << entry.key();
}

INSTANTIATE_TEST_SUITE_P(FrontEnds, MaskedAudio,
                         ::testing::Values(AudioFrontEnd::kMel, AudioFrontEnd::kSubBands));

}  // namespace
}  // namespace fathom::masked_audio_test
