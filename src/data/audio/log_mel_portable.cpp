// Four frames a vector: what every x86-64 processor has.
#include <cmath>
#include <numbers>

#include "data/audio/log_mel_kernels.h"

#define FATHOM_MEL_TARGET
#define FATHOM_MEL_LANES 4
#include "data/audio/log_mel_block.inc"

namespace fathom {
namespace {

Twiddle root(int64_t power, int64_t order) {
  const double angle = -2.0 * std::numbers::pi * static_cast<double>(power) / static_cast<double>(order);
  return {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
}

}  // namespace

MelTables::MelTables(int64_t num_bands) : filters(slaney_filters({.num_bands = num_bands})) {
  for (int64_t n = 0; n < kMelWindow; ++n) {
    const double turn = 2.0 * std::numbers::pi * static_cast<double>(n) / kMelWindow;
    half_window[static_cast<size_t>(n)] = static_cast<float>(0.25 * (1.0 - std::cos(turn)));
  }
  for (int64_t q = 1; q < 5; ++q) {
    for (int64_t j = 0; j < 40; ++j) outer[static_cast<size_t>(4 * j + q - 1)] = root(j * q, 200);
    for (int64_t j = 0; j < 8; ++j) inner[static_cast<size_t>(4 * j + q - 1)] = root(j * q, 40);
  }
  for (int64_t k = 0; k <= kMelWindow / 4; ++k) real[static_cast<size_t>(k)] = root(k, kMelWindow);
  for (int64_t k = 0; k <= kMelWindow / 2; ++k) {
    const int64_t bin = k % (kMelWindow / 2);
    place[static_cast<size_t>(k)] = static_cast<int32_t>(40 * (bin % 5) + 8 * (bin / 5 % 5) + bin / 25);
  }
}

const MelKernels kPortableMel = {kLanes, block, finish};

const MelKernels& mel_kernels() {
  static const MelKernels& best =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? kAvx512Mel
      : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")       ? kAvx2Mel
                                                                              : kPortableMel;
  return best;
}

}  // namespace fathom
