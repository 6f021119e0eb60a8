// B pictures, R and C rows and columns of patches, P regions, D width.
#include "train/task/masked_image.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "batch/loader.h"
#include "evaluate/embedding.h"
#include "models/model_folder.h"
#include "tensor/random_keys.h"
#include "train/task/module_parameters.h"

namespace fathom {
namespace {

constexpr int64_t kPatchMaskStream = int64_t{1} << 40;
constexpr int64_t kChannels = 3;

int64_t region_pixels(const SwinConfig& vision) {
  return vision.patch_size << (vision.num_stages() - 1);
}

int64_t squares_a_side(const MaskedImageConfig& config, const SwinConfig& vision) {
  return vision.image_size / config.mask_size;
}

int64_t hidden_squares(const MaskedImageConfig& config, const SwinConfig& vision) {
  const int64_t side = squares_a_side(config, vision);
  return static_cast<int64_t>(std::ceil(config.mask_ratio * static_cast<double>(side * side)));
}

/// Numbers that are hidden of each picture.
double hidden_values(const MaskedImageConfig& config, const SwinConfig& vision) {
  return static_cast<double>(hidden_squares(config, vision) * config.mask_size * config.mask_size *
                             kChannels);
}

}  // namespace

void MaskedImageConfig::fields(Fields& f) {
  f("mask_size", mask_size, "side of a hidden square in pixels", {.low = 1, .high = 1 << 14});
  f("mask_ratio", mask_ratio, "share of the squares that are hidden", {.low = 0.01, .high = 1});
}

void check_masking(const MaskedImageConfig& config, const SwinConfig& vision) {
  if (vision.image_size % config.mask_size != 0 || config.mask_size % vision.patch_size != 0)
    fail(ErrorKind::kConfig,
         "masked_image.mask_size: {} must divide model.image_size = {} and be a multiple of model.patch_size "
         "= {}",
         config.mask_size, vision.image_size, vision.patch_size);
  if (vision.image_size % region_pixels(vision) != 0)
    fail(ErrorKind::kConfig,
         "model.image_size: {} is no multiple of the {} pixels that a region of the last stage covers",
         vision.image_size, region_pixels(vision));
}

at::Tensor draw_mask(const at::Tensor& key_B, const MaskedImageConfig& config, const SwinConfig& vision) {
  const int64_t side = squares_a_side(config, vision), patches = config.mask_size / vision.patch_size;
  const at::Tensor draw_BU = keyed_uniform(key_B, {side * side}, kPatchMaskStream);
  const at::Tensor chosen_BK =
      std::get<1>(draw_BU.topk(hidden_squares(config, vision), 1, /*largest=*/false));
  const at::Tensor square_BU = at::zeros_like(draw_BU, draw_BU.options().dtype(at::kBool));
  return square_BU.scatter(1, chosen_BK, true)
      .view({-1, side, side})
      .repeat_interleave(patches, 1)
      .repeat_interleave(patches, 2);
}

MaskedImageModelImpl::MaskedImageModelImpl(const SwinConfig& config) : stride_(region_pixels(config)) {
  vision_ = register_module("vision", Swin(config));
  const int64_t in = config.output_dim();
  decoder_ = register_module(
      "decoder", Linear(LinearOptions{.in = in,
                                      .out = stride_ * stride_ * kChannels,
                                      .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))}));
  mask_token_D_ = register_parameter("mask_token", at::empty({config.dim}));
}

void MaskedImageModelImpl::initialise(ParameterInit& init) const {
  init.normal("mask_token", 0.02);
}

at::Tensor MaskedImageModelImpl::reconstruct(const at::Tensor& image_BCHW, const at::Tensor& mask_BRC,
                                             const ForwardContext& context) {
  const at::Tensor region_BPD = vision_->masked_features(image_BCHW, mask_BRC, mask_token_D_, context);
  const at::Tensor drawn = decoder_->forward(region_BPD, context, Feeds::kLoss).transpose(1, 2);
  const int64_t rows = image_BCHW.size(2) / stride_, columns = image_BCHW.size(3) / stride_;
  const at::Tensor wide = drawn.to(drawn.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return at::pixel_shuffle(wide.reshape({image_BCHW.size(0), -1, rows, columns}), stride_);
}

at::Tensor MaskedImageModelImpl::hidden_error(const at::Tensor& image_BCHW, const at::Tensor& mask_BRC,
                                              const ForwardContext& context) {
  const at::Tensor drawn_BCHW = reconstruct(image_BCHW, mask_BRC, context);
  const int64_t patch = vision_->config().patch_size;
  const at::Tensor hidden_B1HW =
      mask_BRC.repeat_interleave(patch, 1).repeat_interleave(patch, 2).unsqueeze(1);
  const at::Tensor error_BCHW = (image_BCHW.to(drawn_BCHW.scalar_type()) - drawn_BCHW).abs();
  return (error_BCHW * hidden_B1HW).sum();
}

double masked_image_error(MaskedImageModel model, const MaskedImageConfig& config,
                          std::shared_ptr<const SampleSource> source, const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  const SwinConfig& vision = model->vision()->config();
  model->eval();
  Loader loader(one_pass(source, options.batch_size, options.workers));
  double sum = 0;
  while (auto batch = loader.next()) {
    const at::Tensor key_B = make_sample_keys(batch->index_B, 0, 0).to(options.device);
    const Batch here = to_device(std::move(*batch), options.device, pixel_statistics(vision.preprocessing));
    sum += model->hidden_error(here.image_BCHW, draw_mask(key_B, config, vision), options.context())
               .item<double>();
  }
  return sum / (hidden_values(config, vision) * static_cast<double>(source->size()));
}

NamedParameters MaskedImageTask::parameters() const {
  return module_parameters(*setup_.model);
}

at::Tensor MaskedImageTask::loss(const MicroBatch& micro_batch, const StepContext& step) {
  FATHOM_CHECK(micro_batch.batch.image_BCHW.defined() && micro_batch.forward.key_B.defined(),
               "[masked_image] expected images and keys in every batch");
  const SwinConfig& vision = setup_.model->vision()->config();
  const at::Tensor mask_BRC = draw_mask(micro_batch.forward.key_B, setup_.config, vision);
  return setup_.model->hidden_error(micro_batch.batch.image_BCHW, mask_BRC, micro_batch.forward) /
         (hidden_values(setup_.config, vision) * static_cast<double>(step.global_samples));
}

void MaskedImageTask::save_model(const std::string& folder, const Json& record) {
  save_model_folder(folder, setup_.model->vision(), {.record = record});
}

PixelStatistics MaskedImageTask::pixels() const {
  return pixel_statistics(setup_.model->vision()->config().preprocessing);
}

double MaskedImageTask::flops_per_sample() const {
  const SwinConfig& vision = setup_.model->vision()->config();
  const double decoder = 2.0 * static_cast<double>(vision.num_regions() * vision.output_dim() *
                                                   region_pixels(vision) * region_pixels(vision) * kChannels);
  return 3.0 * (static_cast<double>(forward_flops(vision, 1)) + decoder);
}

}  // namespace fathom
