// Random bits of one element: a pure function of (key of its sample, stream, position), for kernels on any
// device. `random_keys.h` has the same on tensors.
#pragma once

#include <cstdint>

#include "tensor/host_device.h"

namespace fathom {

/// Two words that stand for one sample's key in one stream.
struct SampleKey {
  uint32_t first;
  uint32_t second;
};

/// A bijection of 32-bit words that scatters them well. Constants: C. Wellons, "hash-prospector" (the pair
/// with the lowest known bias).
FATHOM_HOST_DEVICE constexpr uint32_t mix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x21f0aaadU;
  x = (x ^ (x >> 15)) * 0xd35a2d97U;
  return x ^ (x >> 15);
}

/// The words of `key` in `stream`; streams are layers and places in them.
FATHOM_HOST_DEVICE constexpr SampleKey sample_key(int64_t key, int64_t stream) {
  const auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(static_cast<uint64_t>(key) >> 32);
  const auto stream_low = mix32(static_cast<uint32_t>(stream) + 0x9e3779b9U);
  const auto stream_high = mix32(static_cast<uint32_t>(static_cast<uint64_t>(stream) >> 32) ^ stream_low);
  return {mix32(mix32(low ^ stream_low) + high), mix32(mix32(high ^ stream_high) + low)};
}

/// 32 uniform bits for one position of a sample.
FATHOM_HOST_DEVICE constexpr uint32_t keyed_bits(SampleKey key, uint32_t position) {
  return mix32(mix32(position ^ key.first) + key.second);
}

/// Of the keys of single tokens, as the next: streams that no layer uses.
constexpr int64_t kTokenStream = int64_t{1} << 45;

/// A key for one token of a sample, for layers that compute single tokens.
FATHOM_HOST_DEVICE constexpr int64_t token_key(int64_t key, uint32_t token) {
  const uint64_t high = keyed_bits(sample_key(key, kTokenStream + 1), token);
  return static_cast<int64_t>(keyed_bits(sample_key(key, kTokenStream), token) ^ (high << 32));
}

}  // namespace fathom
