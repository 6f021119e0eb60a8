// Keyed randomness on tensors: every value is a pure function of (key of its sample, stream, position), so it
// is the same on any device, rank and split into batches, and when it is computed again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fathom {

/// Two words that stand for one sample's key in one stream.
struct SampleKey {
  uint32_t first;
  uint32_t second;
};

/// A bijection of 32-bit words that scatters them well. Constants: C. Wellons, "hash-prospector" (the pair
/// with the lowest known bias).
constexpr uint32_t mix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x21f0aaadU;
  x = (x ^ (x >> 15)) * 0xd35a2d97U;
  return x ^ (x >> 15);
}

/// The words of `key` in `stream`; streams are layers and places in them.
constexpr SampleKey sample_key(int64_t key, int64_t stream) {
  const auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(static_cast<uint64_t>(key) >> 32);
  const auto stream_low = mix32(static_cast<uint32_t>(stream) + 0x9e3779b9U);
  const auto stream_high = mix32(static_cast<uint32_t>(static_cast<uint64_t>(stream) >> 32) ^ stream_low);
  return {mix32(mix32(low ^ stream_low) + high), mix32(mix32(high ^ stream_high) + low)};
}

/// 32 uniform bits for one position of a sample.
constexpr uint32_t keyed_bits(SampleKey key, uint32_t position) {
  return mix32(mix32(position ^ key.first) + key.second);
}

/// `keyed_bits` as int64 in [0, 2³²), shape [B, per_sample_shape…], on key_B's device. `key_B`: int64 [B].
/// REQUIRES fewer than 2³² elements a sample.
at::Tensor keyed_bits(const at::Tensor& key_B, at::IntArrayRef per_sample_shape, int64_t stream);

/// Uniform float32 in [0, 1): the upper 24 bits of `keyed_bits`.
at::Tensor keyed_uniform(const at::Tensor& key_B, at::IntArrayRef per_sample_shape, int64_t stream);

/// One key a sample: (seed, step) mixed with each of `index_B` (int64 [B], positions in the data set).
at::Tensor make_sample_keys(const at::Tensor& index_B, int64_t seed, int64_t step);

}  // namespace fathom
