#include "data/image/view.h"

#include <algorithm>
#include <cmath>

namespace fathom {

namespace {

constexpr int kCropAttempts = 10;

int64_t rounded(double x) {
  return std::llrint(x);
}

// The largest rectangle of an allowed ratio, in the middle.
PixelRect fallback_crop(const ImageSize& image, const AugmentConfig& config) {
  const double ratio = static_cast<double>(image.width) / static_cast<double>(image.height);
  int64_t width = image.width;
  int64_t height = image.height;
  if (ratio < config.crop_ratio_min) {
    height =
        std::clamp<int64_t>(rounded(static_cast<double>(width) / config.crop_ratio_min), 1, image.height);
  } else if (ratio > config.crop_ratio_max) {
    width = std::clamp<int64_t>(rounded(static_cast<double>(height) * config.crop_ratio_max), 1, image.width);
  }
  return {(image.width - width) / 2, (image.height - height) / 2, width, height};
}

// The whole pixels around [begin, end) that a filter looks at when it makes `size` pixels of them.
struct Span {
  int64_t begin;
  int64_t end;
};

Span pixels_around(double begin, double end, int64_t limit, Filter filter, int64_t size) {
  const double reach = filter_reach(filter, (end - begin) / static_cast<double>(size)) + 1.0;
  return {std::max<int64_t>(static_cast<int64_t>(std::floor(begin - reach)), 0),
          std::min<int64_t>(static_cast<int64_t>(std::ceil(end + reach)), limit)};
}

// A square of a uniformly drawn area, wholly inside the view.
Box draw_erased(const AugmentConfig& config, Random& random) {
  constexpr double kSmallestArea = 0.02;
  if (config.erase == 0 || !random.chance(config.erase)) return {};
  const double side = std::sqrt(random.uniform(kSmallestArea, config.erase_area_max));
  const double left = random.uniform(0, 1 - side);
  const double top = random.uniform(0, 1 - side);
  return {left, top, left + side, top + side};
}

void erase(PlanarImage& view, const Box& box) {
  constexpr uint8_t kGrey = 124;  // near the mean of photographs
  const auto place = [](double share, int64_t size) { return rounded(share * static_cast<double>(size)); };
  const int64_t left = place(box.left, view.width), right = place(box.right, view.width);
  for (int64_t channel = 0; channel < 3; ++channel)
    for (int64_t y = place(box.top, view.height); y < place(box.bottom, view.height); ++y)
      std::fill(view.plane(channel) + y * view.width + left, view.plane(channel) + y * view.width + right,
                kGrey);
}

}  // namespace

PixelRect draw_crop(const ImageSize& image, const AugmentConfig& config, Random& random) {
  const double area = static_cast<double>(image.height) * static_cast<double>(image.width);
  for (int attempt = 0; attempt < kCropAttempts; ++attempt) {
    const double target = area * random.uniform(config.crop_scale_min, config.crop_scale_max);
    const double ratio =
        std::exp(random.uniform(std::log(config.crop_ratio_min), std::log(config.crop_ratio_max)));
    const int64_t width = rounded(std::sqrt(target * ratio));
    const int64_t height = rounded(std::sqrt(target / ratio));
    if (width < 1 || width > image.width || height < 1 || height > image.height) continue;
    const int64_t top = random.below(image.height - height + 1);
    const int64_t left = random.below(image.width - width + 1);
    return {left, top, width, height};
  }
  return fallback_crop(image, config);
}

ViewPlan training_plan(const ImageSize& image, const AugmentConfig& config, Random& random) {
  ViewPlan plan;
  plan.region = draw_crop(image, config, random);
  plan.box = {0, 0, static_cast<double>(plan.region.width), static_cast<double>(plan.region.height)};
  plan.mirror = config.flip > 0 && random.chance(config.flip);
  plan.colour = draw_colour(config, random);
  plan.erased = draw_erased(config, random);
  return plan;
}

ViewPlan evaluation_plan(const ImageSize& image, const AugmentConfig& config, int64_t size) {
  ViewPlan plan;
  const double width = static_cast<double>(image.width);
  const double height = static_cast<double>(image.height);
  if (config.evaluation == EvaluationView::kSquash) {
    plan.region = {0, 0, image.width, image.height};
    plan.box = {0, 0, width, height};
    return plan;
  }
  const double side = config.evaluation_crop * std::min(width, height);
  const double left = (width - side) / 2;
  const double top = (height - side) / 2;
  const Span across = pixels_around(left, left + side, image.width, config.filter, size);
  const Span down = pixels_around(top, top + side, image.height, config.filter, size);
  plan.region = {across.begin, down.begin, across.end - across.begin, down.end - down.begin};
  const double left_inside = left - static_cast<double>(across.begin);
  const double top_inside = top - static_cast<double>(down.begin);
  plan.box = {left_inside, top_inside, left_inside + side, top_inside + side};
  return plan;
}

PlanarImage render(const PixelView& region, const ViewPlan& plan, int64_t size, Filter filter) {
  PlanarImage view = resample(region, plan.box, {size, size, filter, plan.mirror});
  apply_colour(view, plan.colour);
  erase(view, plan.erased);
  return view;
}

}  // namespace fathom
