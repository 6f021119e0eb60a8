// AdamW's arithmetic, which kernels of every device share. No LibTorch here: .cu files read it.
#pragma once

#include <cmath>

#include "tensor/host_device.h"

namespace fathom::kernels {

/// Alike for all parameters and steps.
struct AdamWSettings {
  double beta1;
  double beta2;
  double epsilon;
  double max_norm;  ///< 0 is unlimited
};

/// A step's scalars, where they lie; null are absent. Their meaning: AdamWTerms in adamw_step.h.
struct AdamWScalarPointers {
  float* step;
  const double* learning_rate;
  const double* average_weight;
  const double* norm;
  const float* divisor;
  const float* skip;
};

/// What they come to.
struct AdamWScalars {
  bool is_skipped;
  double gradient_factor;
  double learning_rate;
  double first_correction;   ///< 1 ÷ (1 − β₁ᵗ)
  double second_correction;  ///< 1 ÷ √(1 − β₂ᵗ)
  double average_weight;
};

/// Counts the step, unless it is skipped.
FATHOM_HOST_DEVICE inline AdamWScalars adamw_scalars(const AdamWScalarPointers& from,
                                                     const AdamWSettings& settings) {
  AdamWScalars result = {};
  result.is_skipped = (from.norm && !std::isfinite(*from.norm)) || (from.skip && *from.skip != 0);
  if (result.is_skipped) return result;
  const double step = *from.step += 1;
  const double clipped = from.norm && settings.max_norm > 0 ? settings.max_norm / (*from.norm + 1e-6) : 1.0;
  result.gradient_factor =
      (clipped < 1 ? clipped : 1.0) / (from.divisor ? static_cast<double>(*from.divisor) : 1.0);
  result.learning_rate = *from.learning_rate;
  result.first_correction = 1 / (1 - std::pow(settings.beta1, step));
  result.second_correction = 1 / std::sqrt(1 - std::pow(settings.beta2, step));
  result.average_weight = from.average_weight ? *from.average_weight : 0.0;
  return result;
}

/// The same for one parameter, in the type C that its elements are computed in.
template <typename C>
struct AdamWCoefficients {
  C gradient_factor;
  C first_share;  ///< 1 − β₁
  C beta2;
  C second_share;  ///< 1 − β₂
  C second_correction;
  C epsilon;
  C step_size;  ///< learning rate ÷ (1 − β₁ᵗ)
  C decay;      ///< learning rate times decay
};

template <typename C>
FATHOM_HOST_DEVICE inline AdamWCoefficients<C> adamw_coefficients(const AdamWScalars& scalars,
                                                                  const AdamWSettings& settings,
                                                                  double learning_rate_scale,
                                                                  double weight_decay) {
  const double learning_rate = scalars.learning_rate * learning_rate_scale;
  return {static_cast<C>(scalars.gradient_factor),
          static_cast<C>(1 - settings.beta1),
          static_cast<C>(settings.beta2),
          static_cast<C>(1 - settings.beta2),
          static_cast<C>(scalars.second_correction),
          static_cast<C>(settings.epsilon),
          static_cast<C>(learning_rate * scalars.first_correction),
          static_cast<C>(learning_rate * weight_decay)};
}

/// One element. Decay and update are subtracted as one, so that a small decay is not rounded away by itself.
template <typename C>
FATHOM_HOST_DEVICE FATHOM_INLINE void adamw_update(const AdamWCoefficients<C>& by, C gradient, C& parameter,
                                                   C& first, C& second) {
  const C g = gradient * by.gradient_factor;
  first += by.first_share * (g - first);
  second = by.beta2 * second + by.second_share * g * g;
  const C deviation = std::sqrt(second) * by.second_correction + by.epsilon;
  parameter -= by.decay * parameter + by.step_size * first / deviation;
}

}  // namespace fathom::kernels
