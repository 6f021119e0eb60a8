#include "data/scenes/render.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "data/scenes/shapes.h"

namespace fathom::scenes {
namespace {

/// Linear mixing happens in display values; channels in 0 … 255.
struct Rgb {
  double r = 0;
  double g = 0;
  double b = 0;
};

/// A colour and its company: what stripes, dots and squares are drawn with.
struct Paint {
  Rgb base;
  Rgb accent;
};
constexpr std::array<Paint, 9> kPaints = {{
    {{218, 48, 46}, {255, 205, 198}},    // red
    {{242, 131, 30}, {255, 232, 198}},   // orange
    {{247, 208, 52}, {255, 248, 214}},   // yellow
    {{52, 160, 72}, {204, 240, 200}},    // green
    {{44, 104, 208}, {200, 222, 255}},   // blue
    {{128, 62, 176}, {228, 206, 248}},   // purple
    {{243, 128, 178}, {255, 226, 240}},  // pink
    {{124, 80, 46}, {226, 202, 176}},    // brown
    {{40, 42, 48}, {186, 190, 200}},     // black
}};
static_assert(kPaints.size() == kColors.size());

constexpr std::array<Rgb, 5> kBackdrops = {
    {{205, 207, 211}, {228, 217, 196}, {190, 212, 230}, {200, 222, 198}, {234, 212, 214}}};
static_assert(kBackdrops.size() == kBackgrounds.size());

Rgb mix(const Rgb& a, const Rgb& b, double t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

/// 1 well inside (distance ≪ 0), 0 well outside, linear across one pixel.
double coverage(double distance_pixels) {
  return std::clamp(0.5 - distance_pixels, 0.0, 1.0);
}

/// Signed distance, in units of the object's radius, to the part painted with the accent (negative within
/// it).
double pattern_distance(int pattern, Point p) {
  const auto saw = [](double value, double period) {
    return std::abs(value - period * std::round(value / period));
  };
  switch (pattern) {
    case 1:
      return saw((p.x + p.y) * M_SQRT1_2, 0.52) - 0.13;  // stripes
    case 2:
      return std::hypot(saw(p.x, 0.56), saw(p.y + 0.28, 0.56)) - 0.17;  // dots
    case 3: {                                                           // checks
      const double x = 0.23 - saw(p.x - 0.23, 0.92);
      const double y = 0.23 - saw(p.y - 0.23, 0.92);
      return x * y > 0 ? -std::min(std::abs(x), std::abs(y)) : std::min(std::abs(x), std::abs(y));
    }
    default:
      return 1;
  }
}

Rgb backdrop(const Scene& scene, Point light, Point p) {
  const Rgb& base = kBackdrops[static_cast<size_t>(scene.background)];
  const double t = std::clamp(0.5 + (p.x - 0.5) * light.x + (p.y - 0.5) * light.y, 0.0, 1.0);
  return t > 0.5 ? mix(base, {255, 255, 255}, scene.light * (t - 0.5))
                 : mix(base, {70, 74, 84}, scene.light * (0.5 - t) * 0.5);
}

Rgb surface(const Object& object, Point p, double pixels_per_radius) {
  const Paint& paint = kPaints[static_cast<size_t>(object.value(Attribute::kColor))];
  const double accent = coverage(pattern_distance(object.value(Attribute::kPattern), p) * pixels_per_radius);
  const Rgb color = mix(paint.base, paint.accent, accent);
  const double light = 0.10 * object.shade - 0.10 * (p.x + p.y);
  return light > 0 ? mix(color, {255, 255, 255}, light) : mix(color, {0, 0, 0}, -light);
}

/// Shadow, then surface, then a darker rim. `own` is the point in the object's frame, `size` the pixels a
/// side.
void draw(const Object& object, Point own, double size, Rgb& pixel) {
  const int shape = object.value(Attribute::kShape);
  const double pixels_per_radius = object.radius * size;
  const double distance = shape_distance(shape, own) * pixels_per_radius;
  const double inside = coverage(distance);
  if (inside < 1) {
    const double shadow = shape_distance(shape, {own.x - 0.09, own.y - 0.13});
    pixel = mix(pixel, {30, 32, 40}, 0.28 * std::clamp(0.5 - shadow / 0.24, 0.0, 1.0));
  }
  if (inside == 0) return;
  const Paint& paint = kPaints[static_cast<size_t>(object.value(Attribute::kColor))];
  const double rim_pixels = std::max(0.6, size / 90);
  const double rim = 0.75 * (1 - coverage(distance + rim_pixels));
  const Rgb color = surface(object, own, pixels_per_radius);
  pixel = mix(pixel, mix(color, mix(paint.base, {0, 0, 0}, 0.45), rim), inside);
}

/// A scene with what does not change from point to point computed once.
class Painter {
 public:
  Painter(const Scene& scene, double size)
      : scene_(scene),
        size_(size),
        light_{std::cos(scene.light_angle), std::sin(scene.light_angle)},
        frames_(scene.objects.begin(), scene.objects.end()) {}

  Rgb color_at(Point p) const {
    constexpr double kReach = 1.25;  // radius and shadow
    Rgb color = backdrop(scene_, light_, p);
    for (size_t i = 0; i < frames_.size(); ++i) {
      const Point own = frames_[i].to_object(p);
      if (own.x * own.x + own.y * own.y < kReach * kReach) draw(scene_.objects[i], own, size_, color);
    }
    return color;
  }

 private:
  const Scene& scene_;
  double size_;  ///< pixels a side
  Point light_;
  std::vector<Frame> frames_;
};

}  // namespace

Image render(const Scene& scene, int64_t size) {
  FATHOM_CHECK(size >= 16, "[render] expected at least 16 pixels, got {}", size);
  Image image{
      .height = size, .width = size, .pixels = std::vector<uint8_t>(static_cast<size_t>(size * size * 3))};
  const auto side = static_cast<double>(size);
  const Painter painter(scene, side);
  uint8_t* out = image.pixels.data();
  for (int64_t i = 0; i < size * size; ++i) {
    const Point centre{(static_cast<double>(i % size) + 0.5) / side,
                       (static_cast<double>(i / size) + 0.5) / side};
    const Rgb color = painter.color_at(centre);
    for (const double channel : {color.r, color.g, color.b})
      *out++ = static_cast<uint8_t>(std::lround(std::clamp(channel, 0.0, 255.0)));
  }
  return image;
}

}  // namespace fathom::scenes
