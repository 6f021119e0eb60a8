// The shape of a Swin transformer, and how its pictures are prepared.
#pragma once

#include <cstdint>
#include <vector>

#include "base/config.h"
#include "nn/gate_config.h"

namespace fathom {

/// Per-channel normalisation of pixels in [0, 1], in RGB order: (x − mean) ÷ deviation.
struct ImagePreprocessing {
  std::vector<double> mean = {0.485, 0.456, 0.406};
  std::vector<double> deviation = {0.229, 0.224, 0.225};
  void fields(Fields& f);
  void validate() const;  ///< Errors (kConfig): not three values, a deviation that is not positive
};

enum class SwinPreset { kCustom, kTiny, kSmall, kBase };

struct SwinConfig {
  SwinPreset preset =
      SwinPreset::kCustom;  ///< in a recipe: sets dim, depths and heads, which may still be given
  int64_t image_size = 224;
  int64_t patch_size = 4;
  int64_t dim = 96;  ///< width of the first stage; doubles each stage
  std::vector<int64_t> depths = {2, 2, 6, 2};
  std::vector<int64_t> heads = {3, 6, 12, 24};
  int64_t window = 7;  ///< side of a window; stages whose map is not larger use one window without shift
  double mlp_ratio = 4.0;
  int64_t local_mixing = 0;  ///< side of the depthwise convolution before each block; 0: none, as published
  int64_t mlp_mixing = 0;    ///< … of one inside each feed-forward layer
  bool convolution_stem = false;  ///< convolutions that overlap, beside the projection of patches
  bool qkv_bias = true;
  double norm_eps = 1e-5;
  double dropout = 0.0;
  double drop_path = 0.1;  ///< stochastic depth, growing linearly to this in the last block
  GateConfig gate;
  ImagePreprocessing preprocessing;

  /// Whether it has parameters that published models lack.
  bool has_additions() const {
    return local_mixing > 0 || mlp_mixing > 0 || convolution_stem || gate.adds_weights();
  }
  /// Whether the windows of a stage's block are shifted.
  static bool shifts(int64_t block) { return block % 2 == 1; }
  int64_t num_stages() const { return static_cast<int64_t>(depths.size()); }
  int64_t stage_dim(int64_t stage) const { return dim << stage; }
  int64_t output_dim() const { return stage_dim(num_stages() - 1); }
  /// Side of the feature map of a stage for an image of `image_size`.
  int64_t stage_side(int64_t stage) const { return stage_side(stage, image_size); }
  int64_t stage_side(int64_t stage, int64_t image_side) const;
  /// P: number of regions that `features` gives.
  int64_t num_regions() const;

  void fields(Fields& f);
  /// Errors (kConfig): an image that patches do not divide, heads that do not divide a stage's width, lists
  /// of different length.
  void validate() const;
};

SwinConfig swin_preset(SwinPreset preset);

/// Parameters of a model of this shape, without making one.
int64_t parameter_count(const SwinConfig& config);
/// Floating-point operations (2 a multiply-add) of matrix products in one forward pass over `images`.
int64_t forward_flops(const SwinConfig& config, int64_t images);

}  // namespace fathom
