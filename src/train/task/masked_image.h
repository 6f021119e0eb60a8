// Masked image modelling: an image encoder learns to fill in what is hidden of pictures.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <functional>
#include <memory>
#include <string>

#include "base/config.h"
#include "batch/sample_source.h"
#include "evaluate/options.h"
#include "models/swin/model.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "train/task.h"

namespace fathom {

struct MaskedImageConfig {
  int64_t mask_size = 32;
  double mask_ratio = 0.6;

  void fields(Fields& f);
};

/// Errors (kConfig): squares that do not tile the image or cut patches, an image that the encoder's last
/// stage does not tile.
void check_masking(const MaskedImageConfig& config, const SwinConfig& vision);

/// Which patches of each picture are hidden, bool [B, R, C]: whole squares of `mask_size` pixels, ⌈ratio ·
/// squares⌉ of each picture, drawn by its key (int64 [B]).
at::Tensor draw_mask(const at::Tensor& key_B, const MaskedImageConfig& config, const SwinConfig& vision);

/// A Swin with a learned token in place of hidden patches and one linear layer from each region of the last
/// stage to its pixels. Source: Xie et al., "SimMIM: a simple framework for masked image modeling", CVPR
/// 2022.
class MaskedImageModelImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit MaskedImageModelImpl(const SwinConfig& config);

  /// The whole picture as the decoder draws it: [B, 3, H, W], float32 or wider.
  at::Tensor reconstruct(const at::Tensor& image_BCHW, const at::Tensor& mask_BRC,
                         const ForwardContext& context = {});
  /// Σ over hidden pixels and channels of |picture − reconstruction|.
  at::Tensor hidden_error(const at::Tensor& image_BCHW, const at::Tensor& mask_BRC,
                          const ForwardContext& context = {});

  Swin vision() const { return vision_; }
  void initialise(ParameterInit& init) const override;

 private:
  Swin vision_{nullptr};
  Linear decoder_{nullptr};
  at::Tensor mask_token_D_;
  int64_t stride_;  ///< pixels of a region's side
};
TORCH_MODULE(MaskedImageModel);

/// Mean absolute error of hidden pixels, in units of the channels' deviation, over `source`, with masks that
/// depend on the sample's place alone.
double masked_image_error(MaskedImageModel model, const MaskedImageConfig& config,
                          std::shared_ptr<const SampleSource> source, const EvaluateOptions& options);

/// Trains the encoder; what is saved is a Swin alone, which other recipes begin with (`init_from`).
class MaskedImageTask : public Task {
 public:
  struct Setup {
    MaskedImageModel model{nullptr};
    MaskedImageConfig config;
    std::function<Metrics(MaskedImageModel)> evaluate;  ///< may be empty
  };
  explicit MaskedImageTask(Setup setup) : setup_(std::move(setup)) {}

  NamedParameters parameters() const override;
  std::vector<NamedGate> gates() const override { return gates_of(*setup_.model); }
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  Metrics evaluate() override { return setup_.evaluate ? setup_.evaluate(setup_.model) : Metrics{}; }
  std::string default_metric() const override { return "masked_l1"; }
  bool launches_alike() const override { return true; }
  void save_model(const std::string& folder, const Json& record) override;
  PixelStatistics pixels() const override;
  double flops_per_sample() const override;

 private:
  Setup setup_;
};

}  // namespace fathom
