// Colour jitter: what is drawn, and how it is applied in at most two passes over the pixels.
#pragma once

#include <array>
#include <cstdint>

#include "base/random.h"
#include "data/image/resample.h"

namespace fathom {

struct AugmentConfig;

enum class ColourOp { kBrightness, kContrast, kSaturation, kHue };

/// One operation: a factor (1 changes nothing), or for hue a turn in [−0.5, 0.5] of the colour circle.
struct ColourStep {
  ColourOp op = ColourOp::kBrightness;
  float amount = 1.0F;
};

/// The operations of one image in their order.
struct ColourPlan {
  std::array<ColourStep, 5> steps;
  int64_t num_steps = 0;
  void add(ColourOp op, double amount) { steps[num_steps++] = {op, static_cast<float>(amount)}; }
};

/// torchvision's ColorJitter (factors uniform in [max(0, 1 − s), 1 + s], hue in [−s, s], in random order),
/// then RandomGrayscale (a saturation of zero). Strengths of zero draw and do nothing.
ColourPlan draw_colour(const AugmentConfig& config, Random& random);

/// Applies the steps in place, in single precision, limited to [0, 255] after each and rounded once at the
/// end; the mathematics of torchvision's float tensors. The same bits on every processor.
///
/// brightness: c·f;  contrast: c·f + (1 − f)·mean of grey;  saturation: c·f + (1 − f)·grey, with grey =
/// 0.2989 r + 0.587 g + 0.114 b;  hue: HSV, turned.
/// REQUIRES at most one contrast.
void apply_colour(PlanarImage& image, const ColourPlan& plan);

/// The same without AVX2, for comparison.
void apply_colour_portable(PlanarImage& image, const ColourPlan& plan);

}  // namespace fathom
