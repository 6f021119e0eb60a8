#include "base/random.h"

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace fathom {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, uint64_t key) {
  uint32_t key_low = static_cast<uint32_t>(key);
  uint32_t key_high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key_low, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key_high,
               static_cast<uint32_t>(product0)};
    key_low += 0x9E3779B9;
    key_high += 0xBB67AE85;
  }
  return counter;
}

uint64_t mix_seed(std::initializer_list<uint64_t> values) {
  uint64_t state = 0x243F6A8885A308D3;
  for (const uint64_t value : values) {
    const auto mixed =
        philox4x32({static_cast<uint32_t>(value), static_cast<uint32_t>(value >> 32), 0, 0}, state);
    state = (uint64_t{mixed[1]} << 32) | mixed[0];
  }
  return state;
}

uint32_t Random::next_u32() {
  if (available_ == 0) {
    buffer_ = philox4x32({static_cast<uint32_t>(counter_), static_cast<uint32_t>(counter_ >> 32),
                          static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                         key_);
    ++counter_;
    available_ = 4;
  }
  return buffer_[4 - available_--];
}

uint64_t Random::next_u64() {
  const uint64_t low = next_u32();
  return low | (uint64_t{next_u32()} << 32);
}

double Random::uniform() {
  return static_cast<double>(next_u64() >> 11) * 0x1.0p-53;
}

double Random::uniform(double low, double high) {
  return low + (high - low) * uniform();
}

int64_t Random::below(int64_t bound) {
  FATHOM_CHECK(bound > 0, "[random] expected a positive bound, got {}", bound);
  const uint64_t range = static_cast<uint64_t>(bound);
  const uint64_t threshold = (0 - range) % range;  // values below it would bias the remainder
  uint64_t draw = next_u64();
  while (draw < threshold) draw = next_u64();
  return static_cast<int64_t>(draw % range);
}

double Random::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

}  // namespace fathom
