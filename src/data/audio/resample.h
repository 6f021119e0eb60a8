// From one sample rate to another.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace fathom {

/// A stream of one channel at another rate, by soxr in its high quality (a linear-phase filter, 20 bits). The
/// result does not depend on how the stream is cut. Equal rates pass samples through. Move-only; used by one
/// thread.
class Resampler {
 public:
  /// REQUIRES positive rates.
  Resampler(double from_rate, double to_rate);
  ~Resampler();
  Resampler(Resampler&&) noexcept;

  /// Appends to `out` what is ready by now.
  void feed(std::span<const float> samples, std::vector<float>& out);
  /// Appends the rest. In all, ⌈samples · to ÷ from⌉ come out, or one fewer. Call once, at the end.
  void finish(std::vector<float>& out);

 private:
  struct State;
  std::unique_ptr<State> state_;  ///< null for equal rates
};

/// A whole recording.
std::vector<float> resample(std::span<const float> samples, double from_rate, double to_rate);

}  // namespace fathom
