#include "data/scenes/sound.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/random.h"

namespace fathom::scenes {
namespace {

constexpr uint64_t kSoundStream = 0x50;
constexpr std::array kSeconds = {0.16, 0.23, 0.32};  ///< by size
constexpr double kGapSeconds = 0.03;
constexpr double kFadeSeconds = 0.012;
constexpr double kLowestHz = 220;
constexpr double kSemitonesAStep = 4;
constexpr double kLoudness = 0.5;
constexpr double kDistanceDb = 12;

/// A multiple of the pitch, how loud it is, and how fast it dies away (1/s).
struct Partial {
  double ratio;
  double amplitude;
  double decay = 0;
};

/// One timbre a shape, in the order of `kShapes`: a whistle, two reeds, an octave, an organ, a string, a
/// hollow pipe, a chorus, a growl, a bell.
std::vector<Partial> partials_of(int shape) {
  switch (shape) {
    case 0:
      return {{1, 1}};
    case 1:
      return {{1, 1}, {3, 0.34}, {5, 0.2}, {7, 0.14}, {9, 0.11}};
    case 2:
      return {{1, 1}, {3, 0.11}, {5, 0.04}};
    case 3:
      return {{1, 0.6}, {2, 1}};
    case 4:
      return {{1, 0.7}, {2, 0.7}, {3, 0.7}, {4, 0.7}, {5, 0.7}};
    case 5:
      return {{1, 1, 6}, {2, 0.8, 8}, {3, 0.65, 10}, {4, 0.5, 12}, {5, 0.4, 14}, {6, 0.35, 16}, {7, 0.3, 18}};
    case 6:
      return {{1, 0.35}, {3, 1}};
    case 7:
      return {{1, 0.6}, {1.03, 0.6}, {2.03, 0.3}};
    case 8:
      return {{0.5, 1}, {1, 0.3}, {1.5, 0.6}, {2.5, 0.4}};
    default:
      return {{1, 0.7, 5}, {2.76, 0.7, 8}, {5.4, 0.5, 12}};
  }
}

/// The tone's pitch and loudness at a time, by pattern.
double pitch_factor(int pattern, double seconds) {
  constexpr double kSwitchesHz = 14, kSemitones = 2;
  const bool high = static_cast<int64_t>(seconds * kSwitchesHz) % 2 == 1;
  return pattern == 3 ? std::exp2((high ? kSemitones : -kSemitones) / 12) : 1;
}

double loudness_factor(int pattern, double seconds) {
  constexpr double kTrembleHz = 24, kBeadsHz = 18;
  if (pattern == 1) return 0.5 + 0.5 * std::cos(2 * std::numbers::pi * kTrembleHz * seconds);
  if (pattern == 2) return std::exp(-6 * (seconds * kBeadsHz - std::floor(seconds * kBeadsHz)));
  return 1;
}

void append_tone(const Object& object, Random& random, std::vector<double>& out) {
  const double tuning = random.uniform(-0.4, 0.4);
  const double pitch_hz =
      kLowestHz * std::exp2((kSemitonesAStep * object.value(Attribute::kColor) + tuning) / 12);
  const double seconds = kSeconds[static_cast<size_t>(object.value(Attribute::kSize))];
  const double loudness = kLoudness * std::pow(10.0, -kDistanceDb * object.distance / 20);
  const int pattern = object.value(Attribute::kPattern);
  const std::vector<Partial> partials = partials_of(object.value(Attribute::kShape));
  double total = 0;
  std::vector<double> phases;
  for (const Partial& partial : partials) {
    total += partial.amplitude;
    phases.push_back(random.uniform(0, 2 * std::numbers::pi));
  }
  const auto length = static_cast<int64_t>(seconds * kSoundRate);
  for (int64_t i = 0; i < length; ++i) {
    const double time = static_cast<double>(i) / kSoundRate;
    const double step = 2 * std::numbers::pi * pitch_hz * pitch_factor(pattern, time) / kSoundRate;
    double value = 0;
    for (size_t k = 0; k < partials.size(); ++k) {
      value += partials[k].amplitude * std::exp(-partials[k].decay * time) * std::sin(phases[k]);
      phases[k] += step * partials[k].ratio;
    }
    const double fade = std::min({1.0, time / kFadeSeconds, (seconds - time) / kFadeSeconds});
    out.push_back(loudness * fade * loudness_factor(pattern, time) * value / total);
  }
  out.insert(out.end(), static_cast<size_t>(kGapSeconds * kSoundRate), 0.0);
}

}  // namespace

Audio make_sound(const Scene& scene) {
  Random random({static_cast<uint64_t>(kSoundsVersion), static_cast<uint64_t>(scene.split),
                 static_cast<uint64_t>(scene.seed), static_cast<uint64_t>(scene.index), kSoundStream});
  std::vector<Object> objects = scene.objects;
  std::stable_sort(objects.begin(), objects.end(),
                   [](const Object& a, const Object& b) { return a.x < b.x; });
  const double noise = std::pow(10.0, random.uniform(-60, -40) / 20);
  std::vector<double> wave;
  for (const Object& object : objects) append_tone(object, random, wave);
  Audio audio{.sample_rate = kSoundRate};
  for (const double value : wave)
    audio.samples.push_back(static_cast<float>(value + noise * random.uniform(-1, 1)));
  return audio;
}

}  // namespace fathom::scenes
