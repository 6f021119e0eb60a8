// The shape of an audio encoder.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "nn/gate_config.h"

namespace fathom {

/// How a spectrogram becomes tokens.
enum class AudioFrontEnd {
  kMel,       ///< all mel bands of a moment are one token
  kSubBands,  ///< they are split into sub-bands, each with embeddings of its own, a token each
};

struct AudioEncoderConfig {
  AudioFrontEnd front_end = AudioFrontEnd::kMel;
  int64_t bands = 80;
  int64_t sub_bands = 4;
  int64_t stride = 2;  ///< frames (10 ms) from one token to the next
  int64_t dim = 192;
  int64_t layers = 4;
  int64_t heads = 4;
  int64_t mlp_dim = 0;        ///< 0: 8/3 of dim, rounded up to a multiple of 64
  int64_t max_frames = 3000;  ///< longest clip
  double rope_theta = 10000.0;
  double norm_eps = 1e-5;
  double dropout = 0.0;    ///< after the stem and on each residual branch
  double drop_path = 0.0;  ///< stochastic depth, growing linearly to this in the last block

  GateConfig gate;

  /// Tokens of one moment.
  int64_t groups() const { return front_end == AudioFrontEnd::kSubBands ? sub_bands : 1; }
  int64_t mlp_size() const { return mlp_dim > 0 ? mlp_dim : (8 * dim / 3 + 63) / 64 * 64; }
  /// Moments of a clip.
  int64_t num_moments(int64_t frames) const { return (frames + stride - 1) / stride; }

  void fields(Fields& f);
  /// Errors (kConfig): sizes that do not divide, an odd head size.
  void validate() const;
};

/// Parameters of a model of this shape, without making one.
int64_t parameter_count(const AudioEncoderConfig& config);
/// Floating-point operations (2 a multiply-add) of matrix products in one forward pass over `clips` of
/// `frames`.
int64_t forward_flops(const AudioEncoderConfig& config, int64_t clips, int64_t frames);

}  // namespace fathom
