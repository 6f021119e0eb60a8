// The choice of the next token from its logits. No tensors here.
#pragma once

#include <cstdint>
#include <span>

#include "base/random.h"

namespace fathom {

struct SamplingConfig {
  double temperature = 1.0;  ///< 0: always the most probable token
  int64_t top_k = 0;         ///< 0: all tokens
  double top_p = 1.0;
};

/// Draws from softmax(logits ÷ temperature), cut to the `top_k` most probable tokens and then to the fewest
/// of them whose probabilities reach `top_p` (Holtzman et al., "The curious case of neural text
/// degeneration", ICLR 2020). Equal logits go by the smaller id. A pure function of its arguments and of the
/// state of `random`, of which exactly one draw is taken. NaN is never chosen; errors (kInternal): no logit
/// is finite.
int32_t sample_token(std::span<const float> logits, const SamplingConfig& config, Random& random);

}  // namespace fathom
