// Pictures of a micro-batch mixed with each other. B samples, N = V·B views of them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "train/task/sample_mixing.h"

namespace fathom {

struct MixedPictures {
  at::Tensor image_NCHW;
  at::Tensor partner_B;  ///< int64: where the sample stands that each was mixed with
  at::Tensor share_B;    ///< float: what a picture has of itself; 1: it is as it was
};

/// Mixes each picture with that of its sample's neighbour (`mix_partners`), all views of a sample with the
/// partner's in the same share λ, which is drawn from Beta(α, α) mirrored to at least ½: as a whole,
/// λ·itself + (1 − λ)·the partner (Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018), or
/// by a box of the share 1 − λ that is cut from the partner (Yun et al., "CutMix: regularization strategy to
/// train strong classifiers with localizable features", ICCV 2019). A box lies wholly within the picture, so
/// that views of one sample have the same λ, and in each view elsewhere; its sides are whole pixels, and λ is
/// what they leave.
///
/// Whatever is drawn is a function of the samples' keys; the host waits for nothing.
class PictureMixing {
 public:
  struct Setup {
    double alpha = 1;
    double cutmix_share = 0;  ///< of the mixed samples: by boxes
    double mix_share = 1;     ///< of all samples: mixed at all
    at::Device device = at::kCPU;
  };
  explicit PictureMixing(const Setup& setup);

  /// `image_NCHW`: floating-point, views of sample b from V·b on. `key_B`: int64, the samples' keys.
  MixedPictures mix(const at::Tensor& image_NCHW, const at::Tensor& key_B) const;

 private:
  Setup setup_;
  MixShares shares_;
};

}  // namespace fathom
