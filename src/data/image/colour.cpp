#include "data/image/colour.h"

#include <algorithm>
#include <cstring>

#include "data/image/augment.h"

// Eight pixels at a time in the compiler's vector types: AVX2 where the processor has it, pairs of SSE2
// registers elsewhere, from one source and with the same rounding (no fused multiply-add in either).
#define FATHOM_INLINE [[gnu::always_inline]] inline
#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never leave this file

namespace fathom {

namespace {

constexpr int64_t kLanes = 8;
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using Bytes = uint8_t __attribute__((vector_size(kLanes)));

struct Pixels {
  Floats red;
  Floats green;
  Floats blue;
};

FATHOM_INLINE Floats smaller(Floats a, Floats b) {
  return a < b ? a : b;
}

FATHOM_INLINE Floats larger(Floats a, Floats b) {
  return a > b ? a : b;
}

FATHOM_INLINE Floats limited(Floats x) {
  return smaller(larger(x, Floats{}), Floats{} + 255.0F);
}

FATHOM_INLINE Floats load(const uint8_t* bytes) {
  Bytes values;
  std::memcpy(&values, bytes, sizeof values);
  return __builtin_convertvector(__builtin_convertvector(values, Ints), Floats);
}

FATHOM_INLINE void store(Floats values, uint8_t* bytes) {
  const Bytes rounded = __builtin_convertvector(__builtin_convertvector(values + 0.5F, Ints), Bytes);
  std::memcpy(bytes, &rounded, sizeof rounded);
}

FATHOM_INLINE Floats grey_of(const Pixels& p) {
  return p.red * 0.2989F + p.green * 0.587F + p.blue * 0.114F;
}

FATHOM_INLINE void blend(Pixels& p, const Floats& other, float factor) {
  const Floats rest = other * (1.0F - factor);
  p.red = limited(p.red * factor + rest);
  p.green = limited(p.green * factor + rest);
  p.blue = limited(p.blue * factor + rest);
}

// A channel of HSV → RGB: value − chroma · limit(min(k, 4 − k), 0, 1), k = (offset + hue) mod 6.
FATHOM_INLINE Floats channel_of(Floats hue, float offset, Floats value, Floats chroma) {
  Floats k = hue + offset;
  k = k >= 6.0F ? k - 6.0F : k;
  const Floats share = smaller(larger(smaller(k, 4.0F - k), Floats{}), Floats{} + 1.0F);
  return value - chroma * share;
}

FATHOM_INLINE void turn_hue(Pixels& p, float turn) {
  const Floats value = larger(p.red, larger(p.green, p.blue));
  const Floats chroma = value - smaller(p.red, smaller(p.green, p.blue));
  const Floats inverse = 1.0F / (chroma == 0.0F ? Floats{} + 1.0F : chroma);
  const Floats by_red = (p.green - p.blue) * inverse;
  const Floats by_green = (p.blue - p.red) * inverse + 2.0F;
  const Floats by_blue = (p.red - p.green) * inverse + 4.0F;
  Floats hue = value == p.red ? by_red : (value == p.green ? by_green : by_blue);
  hue += 6.0F * turn;
  hue = hue < 0.0F ? hue + 6.0F : hue;
  hue = hue >= 6.0F ? hue - 6.0F : hue;
  p = {channel_of(hue, 5.0F, value, chroma), channel_of(hue, 3.0F, value, chroma),
       channel_of(hue, 1.0F, value, chroma)};
}

FATHOM_INLINE void apply_step(Pixels& p, const ColourStep& step, float mean_grey) {
  switch (step.op) {
    case ColourOp::kBrightness:
      return blend(p, Floats{}, step.amount);
    case ColourOp::kContrast:
      return blend(p, Floats{} + mean_grey, step.amount);
    case ColourOp::kSaturation:
      return blend(p, grey_of(p), step.amount);
    case ColourOp::kHue:
      return turn_hue(p, step.amount);
  }
}

// The steps [0, num_steps) of a plan on eight pixels.
FATHOM_INLINE Pixels transformed(const std::array<const uint8_t*, 3>& planes, const ColourPlan& plan,
                                 int64_t num_steps, float mean_grey) {
  Pixels p = {load(planes[0]), load(planes[1]), load(planes[2])};
  for (int64_t i = 0; i < num_steps; ++i) apply_step(p, plan.steps[i], mean_grey);
  return p;
}

// Stretches of the three planes, a multiple of kLanes long.
struct PixelRun {
  std::array<uint8_t*, 3> planes;
  int64_t size = 0;
  FATHOM_INLINE std::array<const uint8_t*, 3> at(int64_t i) const {
    return {planes[0] + i, planes[1] + i, planes[2] + i};
  }
};

// The sum of grey after the first `num_steps` steps.
FATHOM_INLINE double sum_grey(const PixelRun& run, const ColourPlan& plan, int64_t num_steps) {
  constexpr int64_t kBlock = 256 * kLanes;  // few enough that single precision loses nothing
  double total = 0;
  for (int64_t begin = 0; begin < run.size; begin += kBlock) {
    Floats sum = {};
    for (int64_t i = begin; i < std::min(begin + kBlock, run.size); i += kLanes) {
      sum += grey_of(transformed(run.at(i), plan, num_steps, 0.0F));
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) total += sum[lane];
  }
  return total;
}

FATHOM_INLINE void apply_all(const PixelRun& run, const ColourPlan& plan, float mean_grey) {
  for (int64_t i = 0; i < run.size; i += kLanes) {
    const Pixels p = transformed(run.at(i), plan, plan.num_steps, mean_grey);
    store(p.red, run.planes[0] + i);
    store(p.green, run.planes[1] + i);
    store(p.blue, run.planes[2] + i);
  }
}

double sum_grey_portable(const PixelRun& run, const ColourPlan& plan, int64_t num_steps) {
  return sum_grey(run, plan, num_steps);
}

void apply_portable(const PixelRun& run, const ColourPlan& plan, float mean_grey) {
  apply_all(run, plan, mean_grey);
}

[[gnu::target("avx2")]] double sum_grey_avx2(const PixelRun& run, const ColourPlan& plan, int64_t num_steps) {
  return sum_grey(run, plan, num_steps);
}

[[gnu::target("avx2")]] void apply_avx2(const PixelRun& run, const ColourPlan& plan, float mean_grey) {
  apply_all(run, plan, mean_grey);
}

struct Kernels {
  double (*sum_grey)(const PixelRun&, const ColourPlan&, int64_t);
  void (*apply)(const PixelRun&, const ColourPlan&, float);
};

constexpr Kernels kPortable = {sum_grey_portable, apply_portable};
constexpr Kernels kAvx2 = {sum_grey_avx2, apply_avx2};

// The pixels that fill no whole group, copied out and padded with black, which every step before the
// contrast leaves black and so adds nothing to the sum of grey.
struct Tail {
  alignas(kLanes) uint8_t bytes[3][kLanes] = {};

  Tail(const PlanarImage& image, int64_t begin, int64_t size) {
    for (int c = 0; c < 3; ++c) std::copy_n(image.plane(c) + begin, size, bytes[c]);
  }
  PixelRun run() { return {{bytes[0], bytes[1], bytes[2]}, kLanes}; }
  void copy_back(PlanarImage& image, int64_t begin, int64_t size) const {
    for (int c = 0; c < 3; ++c) std::copy_n(bytes[c], size, image.plane(c) + begin);
  }
};

void apply_with(const Kernels& kernels, PlanarImage& image, const ColourPlan& plan) {
  const int64_t num_pixels = image.height * image.width;
  const int64_t tail_size = num_pixels % kLanes;
  const int64_t whole = num_pixels - tail_size;
  const PixelRun run = {{image.plane(0), image.plane(1), image.plane(2)}, whole};
  Tail tail(image, whole, tail_size);

  const ColourStep* end = plan.steps.data() + plan.num_steps;
  const ColourStep* contrast = std::find_if(
      plan.steps.data(), end, [](const ColourStep& step) { return step.op == ColourOp::kContrast; });
  float mean_grey = 0;
  if (contrast != end) {
    const int64_t before = contrast - plan.steps.data();
    const double sum = kernels.sum_grey(run, plan, before) + kernels.sum_grey(tail.run(), plan, before);
    mean_grey = static_cast<float>(sum / static_cast<double>(num_pixels));
  }
  kernels.apply(run, plan, mean_grey);
  kernels.apply(tail.run(), plan, mean_grey);
  tail.copy_back(image, whole, tail_size);
}

}  // namespace

ColourPlan draw_colour(const AugmentConfig& config, Random& random) {
  ColourPlan plan;
  if (config.jitter > 0 && random.chance(config.jitter)) {
    const auto add_factor = [&](ColourOp op, double strength) {
      if (strength > 0) plan.add(op, random.uniform(std::max(0.0, 1.0 - strength), 1.0 + strength));
    };
    add_factor(ColourOp::kBrightness, config.brightness);
    add_factor(ColourOp::kContrast, config.contrast);
    add_factor(ColourOp::kSaturation, config.saturation);
    if (config.hue > 0) plan.add(ColourOp::kHue, random.uniform(-config.hue, config.hue));
    std::span steps(plan.steps.data(), static_cast<size_t>(plan.num_steps));
    random.shuffle(steps);
  }
  if (config.grayscale > 0 && random.chance(config.grayscale)) plan.add(ColourOp::kSaturation, 0.0);
  return plan;
}

void apply_colour(PlanarImage& image, const ColourPlan& plan) {
  if (plan.num_steps == 0) return;
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  apply_with(has_avx2 ? kAvx2 : kPortable, image, plan);
}

void apply_colour_portable(PlanarImage& image, const ColourPlan& plan) {
  apply_with(kPortable, image, plan);
}

}  // namespace fathom
