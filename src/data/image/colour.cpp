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

constexpr int64_t kColourLanes = 8;
using Floats = float __attribute__((vector_size(kColourLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kColourLanes * sizeof(int32_t))));
using Bytes = uint8_t __attribute__((vector_size(kColourLanes)));
using PackedBytes = uint64_t __attribute__((vector_size(2 * sizeof(uint64_t))));
using HalfVectorBytes = uint8_t __attribute__((vector_size(kColourLanes * 2)));
using VectorBytes = uint8_t __attribute__((vector_size(kColourLanes * 4)));

struct Pixels {
  Floats red;
  Floats green;
  Floats blue;
};

FATHOM_INLINE Floats smaller(const Floats& a, const Floats& b) {
  return a < b ? a : b;
}

FATHOM_INLINE Floats larger(const Floats& a, const Floats& b) {
  return a > b ? a : b;
}

FATHOM_INLINE Floats limited(const Floats& x) {
  return smaller(larger(x, Floats{}), Floats{} + 255.0F);
}

// Byte shuffles, since gcc 12 makes scalar code of a conversion between bytes and integers.
FATHOM_INLINE Floats load(const uint8_t* bytes) {
  uint64_t packed;
  std::memcpy(&packed, bytes, sizeof packed);
  const PackedBytes lowest = {packed, 0};
  const auto& values = reinterpret_cast<const HalfVectorBytes&>(lowest);
  const VectorBytes widened = __builtin_shufflevector(
      values, HalfVectorBytes{}, 0, 16, 16, 16, 1, 16, 16, 16, 2, 16, 16, 16, 3, 16, 16, 16,  //
      4, 16, 16, 16, 5, 16, 16, 16, 6, 16, 16, 16, 7, 16, 16, 16);
  return __builtin_convertvector(reinterpret_cast<const Ints&>(widened), Floats);
}

FATHOM_INLINE void store(const Floats& values, uint8_t* bytes) {
  const Ints rounded = __builtin_convertvector(values + 0.5F, Ints);
  const auto& all = reinterpret_cast<const VectorBytes&>(rounded);
  const Bytes lowest = __builtin_shufflevector(all, all, 0, 4, 8, 12, 16, 20, 24, 28);
  std::memcpy(bytes, &lowest, kColourLanes);
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
FATHOM_INLINE Floats channel_of(const Floats& hue, float offset, const Floats& value, const Floats& chroma) {
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

// Stretches of the three planes, a multiple of kColourLanes long.
struct PixelRun {
  std::array<uint8_t*, 3> planes;
  int64_t size = 0;
};

// As many pixels as are worked on at a time, step after step: few enough to stay in the first cache, enough
// that independent groups hide each other's latency.
constexpr int64_t kBlockGroups = 64;

struct Block {
  std::array<Pixels, kBlockGroups> groups;
  int64_t num_groups;
};

FATHOM_INLINE void load_block(Block& block, const PixelRun& run, int64_t begin) {
  block.num_groups = std::min(kBlockGroups, (run.size - begin) / kColourLanes);
  for (int64_t g = 0; g < block.num_groups; ++g) {
    const int64_t place = begin + g * kColourLanes;
    block.groups[g] = {load(run.planes[0] + place), load(run.planes[1] + place), load(run.planes[2] + place)};
  }
}

FATHOM_INLINE void store_block(const Block& block, const PixelRun& run, int64_t begin) {
  for (int64_t g = 0; g < block.num_groups; ++g) {
    const int64_t place = begin + g * kColourLanes;
    store(block.groups[g].red, run.planes[0] + place);
    store(block.groups[g].green, run.planes[1] + place);
    store(block.groups[g].blue, run.planes[2] + place);
  }
}

FATHOM_INLINE void apply_step(Block& block, const ColourStep& step, float mean_grey) {
  const std::span<Pixels> groups(block.groups.data(), static_cast<size_t>(block.num_groups));
  switch (step.op) {
    case ColourOp::kBrightness:
      for (Pixels& p : groups) blend(p, Floats{}, step.amount);
      break;
    case ColourOp::kContrast:
      for (Pixels& p : groups) blend(p, Floats{} + mean_grey, step.amount);
      break;
    case ColourOp::kSaturation:
      for (Pixels& p : groups) blend(p, grey_of(p), step.amount);
      break;
    case ColourOp::kHue:
      for (Pixels& p : groups) turn_hue(p, step.amount);
      break;
  }
}

// The sum of grey after the first `num_steps` steps.
FATHOM_INLINE double sum_grey(const PixelRun& run, const ColourPlan& plan, int64_t num_steps) {
  double total = 0;
  Block block;
  for (int64_t begin = 0; begin < run.size; begin += kBlockGroups * kColourLanes) {
    load_block(block, run, begin);
    for (int64_t i = 0; i < num_steps; ++i) apply_step(block, plan.steps[i], 0.0F);
    Floats sum = {};
    for (int64_t g = 0; g < block.num_groups; ++g) sum += grey_of(block.groups[g]);
    for (int64_t lane = 0; lane < kColourLanes; ++lane) total += sum[lane];
  }
  return total;
}

FATHOM_INLINE void apply_all(const PixelRun& run, const ColourPlan& plan, float mean_grey) {
  Block block;
  for (int64_t begin = 0; begin < run.size; begin += kBlockGroups * kColourLanes) {
    load_block(block, run, begin);
    for (int64_t i = 0; i < plan.num_steps; ++i) apply_step(block, plan.steps[i], mean_grey);
    store_block(block, run, begin);
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
  alignas(kColourLanes) uint8_t bytes[3][kColourLanes] = {};

  Tail(const PlanarImage& image, int64_t begin, int64_t size) {
    for (int c = 0; c < 3; ++c) std::copy_n(image.plane(c) + begin, size, bytes[c]);
  }
  PixelRun run() { return {{bytes[0], bytes[1], bytes[2]}, kColourLanes}; }
  void copy_back(PlanarImage& image, int64_t begin, int64_t size) const {
    for (int c = 0; c < 3; ++c) std::copy_n(bytes[c], size, image.plane(c) + begin);
  }
};

void apply_with(const Kernels& kernels, PlanarImage& image, const ColourPlan& plan) {
  const int64_t num_pixels = image.height * image.width;
  const int64_t tail_size = num_pixels % kColourLanes;
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
