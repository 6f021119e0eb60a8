// A view as a plan (which pixels, mirrored, which colours), drawn from an image's size alone, and its making.
#pragma once

#include <cstdint>

#include "base/random.h"
#include "data/image/augment.h"
#include "data/image/colour.h"
#include "data/image/pixels.h"
#include "data/image/resample.h"

namespace fathom {

/// What becomes of an upright image.
struct ViewPlan {
  PixelRect region;  ///< the pixels that are read at all
  Box box;           ///< what the view shows, relative to the region's corner
  bool mirror = false;
  ColourPlan colour;
  Box erased;  ///< painted grey, in shares of the view's sides; empty for none
};

/// Height and width of an upright image.
struct ImageSize {
  int64_t height = 0;
  int64_t width = 0;
};

/// torchvision's RandomResizedCrop.get_params: up to ten draws of an area (uniform) and an aspect ratio
/// (log-uniform) until the rectangle fits, else the largest centred rectangle of an allowed ratio.
PixelRect draw_crop(const ImageSize& image, const AugmentConfig& config, Random& random);

ViewPlan training_plan(const ImageSize& image, const AugmentConfig& config, Random& random);
ViewPlan evaluation_plan(const ImageSize& image, const AugmentConfig& config, int64_t size);

/// Makes the view from the plan's region.
PlanarImage render(const PixelView& region, const ViewPlan& plan, int64_t size, Filter filter);

}  // namespace fathom
