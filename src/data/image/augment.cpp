#include "data/image/augment.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "data/image/format.h"
#include "data/image/jpeg_reader.h"
#include "data/image/orientation.h"
#include "data/image/view.h"

namespace fathom {

namespace {

constexpr int kMaxDenominator = 8;

// The largest reduction that leaves kScaledDecodeGap pixels a side for each one of the view.
int choose_denominator(const Box& box, int64_t size) {
  const double shorter = std::min(box.right - box.left, box.bottom - box.top);
  int denominator = 1;
  while (denominator < kMaxDenominator &&
         shorter / (2.0 * denominator) >= kScaledDecodeGap * static_cast<double>(size)) {
    denominator *= 2;
  }
  return denominator;
}

int64_t divided_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

// One axis of a JPEG decoded at 1/denominator: upright position x is (x + shift) ÷ denominator there. An axis
// that is mirrored when turned upright begins with the stored image's last, incomplete pixel.
struct ReducedAxis {
  int64_t denominator;
  int64_t shift;
  ReducedAxis(int64_t size, bool mirrored, int64_t denominator)
      : denominator(denominator), shift(mirrored ? divided_up(size, denominator) * denominator - size : 0) {}
  double place(double x) const { return (x + static_cast<double>(shift)) / static_cast<double>(denominator); }
  int64_t pixel_at(int64_t x) const { return (x + shift) / denominator; }
  int64_t pixel_after(int64_t x) const { return divided_up(x + shift, denominator); }
};

ViewPlan reduced(const ViewPlan& plan, const ReducedAxis& across, const ReducedAxis& down) {
  const PixelRect& region = plan.region;
  const int64_t left = across.pixel_at(region.left);
  const int64_t top = down.pixel_at(region.top);
  const double x = static_cast<double>(region.left);
  const double y = static_cast<double>(region.top);
  ViewPlan result = plan;
  result.region = {left, top, across.pixel_after(region.left + region.width) - left,
                   down.pixel_after(region.top + region.height) - top};
  result.box = {across.place(x + plan.box.left) - static_cast<double>(left),
                down.place(y + plan.box.top) - static_cast<double>(top),
                across.place(x + plan.box.right) - static_cast<double>(left),
                down.place(y + plan.box.bottom) - static_cast<double>(top)};
  return result;
}

ImageSize upright_size(const JpegReader& reader) {
  return turn_of(reader.orientation()).transpose ? ImageSize{reader.width(), reader.height()}
                                                 : ImageSize{reader.height(), reader.width()};
}

// Decodes the blocks of one region only.
PlanarImage render_jpeg(JpegReader& reader, const ViewPlan& plan, const AugmentConfig& config, int64_t size) {
  const int denominator = config.scaled_decode ? choose_denominator(plan.box, size) : 1;
  const int orientation = reader.orientation();
  const Turn turn = turn_of(orientation);
  const ImageSize upright = upright_size(reader);
  const ReducedAxis across(upright.width, turn.transpose ? turn.mirror_y : turn.mirror_x, denominator);
  const ReducedAxis down(upright.height, turn.transpose ? turn.mirror_x : turn.mirror_y, denominator);
  const ViewPlan scaled = reduced(plan, across, down);
  const PixelRect stored = stored_rect(scaled.region, orientation, divided_up(reader.height(), denominator),
                                       divided_up(reader.width(), denominator));
  const Image region = turn_upright(reader.read(stored, denominator), orientation);
  return render(view_of(region), scaled, size, config.filter);
}

// `plan_for` draws a plan once the image's size is known.
template <typename PlanFor>
PlanarImage load_view(const EncodedImage& encoded, const AugmentConfig& config, int64_t size,
                      const DecodeOptions& options, const PlanFor& plan_for) {
  if (detect_format(encoded.bytes, encoded.source) == ImageFormat::kJpeg) {
    JpegReader reader(encoded.bytes, encoded.source, options);
    check_pixels(reader.height(), reader.width(), encoded.source, options);
    return render_jpeg(reader, plan_for(upright_size(reader)), config, size);
  }
  const Image image = decode_image(encoded.bytes, encoded.source, options);
  const ViewPlan plan = plan_for(ImageSize{image.height, image.width});
  return render(view_of(image, plan.region), plan, size, config.filter);
}

void copy_planes(const PlanarImage& planes, std::span<uint8_t> chw) {
  FATHOM_CHECK(chw.size() == planes.pixels.size(), "[image] expected room for {} bytes, got {}",
               planes.pixels.size(), chw.size());
  std::copy(planes.pixels.begin(), planes.pixels.end(), chw.begin());
}

}  // namespace

void AugmentConfig::fields(Fields& f) {
  f("crop_scale_min", crop_scale_min, "smallest share of the image's area that a training crop keeps",
    {.low = 0.01, .high = 1.0});
  f("crop_scale_max", crop_scale_max, "largest share", {.low = 0.01, .high = 1.0});
  f("crop_ratio_min", crop_ratio_min, "smallest width ÷ height of a training crop",
    {.low = 0.1, .high = 10.0});
  f("crop_ratio_max", crop_ratio_max, "largest width ÷ height", {.low = 0.1, .high = 10.0});
  f("flip", flip, "probability of exchanging left and right; 0 where captions name them",
    {.low = 0.0, .high = 1.0});
  f("jitter", jitter, "probability that the colour jitter below is applied", {.low = 0.0, .high = 1.0});
  f("brightness", brightness, "strength s: a factor from [1 − s, 1 + s]", {.low = 0.0, .high = 4.0});
  f("contrast", contrast, "strength of the contrast jitter", {.low = 0.0, .high = 4.0});
  f("saturation", saturation, "strength of the saturation jitter", {.low = 0.0, .high = 4.0});
  f("hue", hue, "largest turn of the colour circle, in turns", {.low = 0.0, .high = 0.5});
  f("grayscale", grayscale, "probability of taking the colour away", {.low = 0.0, .high = 1.0});
  f("erase", erase, "probability of painting a square of the view grey", {.low = 0.0, .high = 1.0});
  f("erase_area_max", erase_area_max,
    "largest share of the view that the square covers; the smallest is 0.02", {.low = 0.02, .high = 1.0});
  f.choice("filter", filter, "resampling filter",
           {{"bilinear", Filter::kBilinear}, {"bicubic", Filter::kBicubic}});
  f.choice("evaluation", evaluation, "how an image becomes a square for evaluation",
           {{"centre_crop", EvaluationView::kCentreCrop}, {"squash", EvaluationView::kSquash}});
  f("evaluation_crop", evaluation_crop, "share of the shorter side that the centre crop keeps",
    {.low = 0.1, .high = 1.0});
  f("scaled_decode", scaled_decode, "decode large JPEGs at 1/2, 1/4 or 1/8 where the view stays the same");
}

void AugmentConfig::validate() const {
  if (crop_scale_min > crop_scale_max) {
    fail(ErrorKind::kConfig, "crop_scale_min ({}) is above crop_scale_max ({})", crop_scale_min,
         crop_scale_max);
  }
  if (crop_ratio_min > crop_ratio_max) {
    fail(ErrorKind::kConfig, "crop_ratio_min ({}) is above crop_ratio_max ({})", crop_ratio_min,
         crop_ratio_max);
  }
}

Image augment(const Image& image, const AugmentConfig& config, int64_t size, Random& random) {
  const ViewPlan plan = training_plan({image.height, image.width}, config, random);
  return interleave(render(view_of(image, plan.region), plan, size, config.filter));
}

Image centre_view(const Image& image, const AugmentConfig& config, int64_t size) {
  const ViewPlan plan = evaluation_plan({image.height, image.width}, config, size);
  return interleave(render(view_of(image, plan.region), plan, size, config.filter));
}

Image load_augmented(const EncodedImage& encoded, const AugmentConfig& config, int64_t size, Random& random,
                     const DecodeOptions& options) {
  return interleave(load_view(encoded, config, size, options,
                              [&](const ImageSize& image) { return training_plan(image, config, random); }));
}

void load_augmented(const EncodedImage& encoded, const AugmentConfig& config, int64_t size, Random& random,
                    std::span<uint8_t> chw) {
  copy_planes(load_view(encoded, config, size, {},
                        [&](const ImageSize& image) { return training_plan(image, config, random); }),
              chw);
}

Image load_centre_view(const EncodedImage& encoded, const AugmentConfig& config, int64_t size,
                       const DecodeOptions& options) {
  return interleave(load_view(encoded, config, size, options,
                              [&](const ImageSize& image) { return evaluation_plan(image, config, size); }));
}

void load_centre_view(const EncodedImage& encoded, const AugmentConfig& config, int64_t size,
                      std::span<uint8_t> chw) {
  copy_planes(load_view(encoded, config, size, {},
                        [&](const ImageSize& image) { return evaluation_plan(image, config, size); }),
              chw);
}

void normalise(std::span<const uint8_t> chw, const std::array<float, 3>& mean,
               const std::array<float, 3>& std, std::span<float> result) {
  FATHOM_CHECK(chw.size() % 3 == 0 && result.size() == chw.size(),
               "[normalise] expected three planes and as many results, got {} and {}", chw.size(),
               result.size());
  const size_t plane_size = chw.size() / 3;
  for (size_t channel = 0; channel < 3; ++channel) {
    const float scale = 1.0F / (255.0F * std[channel]);
    const float offset = -mean[channel] / std[channel];
    const uint8_t* in = chw.data() + channel * plane_size;
    float* out = result.data() + channel * plane_size;
    for (size_t i = 0; i < plane_size; ++i) out[i] = static_cast<float>(in[i]) * scale + offset;
  }
}

}  // namespace fathom
