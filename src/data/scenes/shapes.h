// The outlines of the ten shapes as signed distance functions.
#pragma once

#include "data/scenes/scene.h"

namespace fathom::scenes {

struct Point {
  double x = 0;
  double y = 0;
};

/// Distance from `p` to the outline of a shape that fits into the unit circle: negative inside; exact near
/// the outline, a bound elsewhere. y points down. Formulas after Inigo Quilez, "2D distance functions".
double shape_distance(int shape, Point p);

/// An object's own frame: upright, centre 0, radius 1.
class Frame {
 public:
  explicit Frame(const Object& object);
  /// `point` is in units of the picture.
  Point to_object(Point point) const;

 private:
  Point centre_;
  double cosine_;  ///< of the rotation, over the radius; likewise the sine
  double sine_;
};

}  // namespace fathom::scenes
