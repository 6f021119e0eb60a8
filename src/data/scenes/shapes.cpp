#include "data/scenes/shapes.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace fathom::scenes {
namespace {

constexpr double kPi = std::numbers::pi;

double box(Point p, double half_width, double half_height) {
  const double dx = std::abs(p.x) - half_width;
  const double dy = std::abs(p.y) - half_height;
  return std::hypot(std::max(dx, 0.0), std::max(dy, 0.0)) + std::min(std::max(dx, dy), 0.0);
}

/// Corner up.
double regular_polygon(Point p, int corners, double radius) {
  const double half = kPi / corners;
  const double angle = std::atan2(p.x, -p.y);
  const double folded = angle - 2 * half * std::floor(angle / (2 * half)) - half;
  return std::hypot(p.x, p.y) * std::cos(folded) - radius * std::cos(half);
}

double rhombus(Point p, double half_width, double half_height) {
  const double excess = std::abs(p.x) * half_height + std::abs(p.y) * half_width - half_width * half_height;
  return excess / std::hypot(half_width, half_height);
}

/// Five points; `inner` is the radius of the notches. Folds the plane into one edge and measures to it.
double star(Point p, double outer, double inner) {
  const double half = kPi / 5;
  const double angle = std::atan2(p.x, -p.y);
  const double folded = std::abs(angle - 2 * half * std::round(angle / (2 * half)));
  const double length = std::hypot(p.x, p.y);
  const Point q{length * std::sin(folded), length * std::cos(folded)};
  const Point tip{0, outer};
  const Point notch{inner * std::sin(half), inner * std::cos(half)};
  const Point edge{notch.x - tip.x, notch.y - tip.y};
  const Point from_tip{q.x - tip.x, q.y - tip.y};
  const double along = (from_tip.x * edge.x + from_tip.y * edge.y) / (edge.x * edge.x + edge.y * edge.y);
  const double t = std::clamp(along, 0.0, 1.0);
  const double distance = std::hypot(from_tip.x - t * edge.x, from_tip.y - t * edge.y);
  const bool inside = from_tip.x * edge.y - from_tip.y * edge.x > 0;
  return inside ? -distance : distance;
}

/// Two lobes over a tip, about 1 high; scaled and shifted into the unit circle by the caller.
double heart(Point p) {
  const double x = std::abs(p.x);
  const double y = p.y;
  if (x + y > 1.0) return std::hypot(x - 0.25, y - 0.75) - std::numbers::sqrt2 / 4;
  const double to_tip = 0.5 * std::max(x + y, 0.0);
  const double square =
      std::min(x * x + (y - 1) * (y - 1), (x - to_tip) * (x - to_tip) + (y - to_tip) * (y - to_tip));
  return std::copysign(std::sqrt(square), x - y);
}

}  // namespace

double shape_distance(int shape, Point p) {
  switch (shape) {
    case 0:
      return std::hypot(p.x, p.y) - 0.88;
    case 1:
      return box(p, 0.76, 0.76);
    case 2:
      return regular_polygon({p.x, p.y - 0.18}, 3, 0.95);
    case 3:
      return rhombus(p, 0.68, 1.0);
    case 4:
      return regular_polygon({p.x, p.y - 0.04}, 5, 0.96);
    case 5:
      return star({p.x, p.y - 0.04}, 1.04, 0.44);
    case 6:
      return std::min(box(p, 0.92, 0.31), box(p, 0.31, 0.92));
    case 7:
      return 1.56 * heart({p.x / 1.56, 0.53 - p.y / 1.56});
    case 8:
      return std::max(std::hypot(p.x - 0.08, p.y) - 0.95, 0.76 - std::hypot(p.x - 0.5, p.y));
    case 9:
      return std::abs(std::hypot(p.x, p.y) - 0.68) - 0.25;
    default:
      break;
  }
  FATHOM_CHECK(false, "[shape_distance] expected a shape below {}, got {}", kShapes.size(), shape);
}

Frame::Frame(const Object& object)
    : centre_{object.x, object.y},
      cosine_(std::cos(object.rotation) / object.radius),
      sine_(std::sin(object.rotation) / object.radius) {}

Point Frame::to_object(Point point) const {
  const double dx = point.x - centre_.x;
  const double dy = point.y - centre_.y;
  return {cosine_ * dx + sine_ * dy, cosine_ * dy - sine_ * dx};
}

}  // namespace fathom::scenes
