// AVX2: a pixel pair times a weight pair is one multiply-add of 16-bit numbers, done twice, for the high and
// the low part of the 22-bit weights.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "data/image/resample_kernels.h"

#define FATHOM_AVX2 __attribute__((target("avx2")))

namespace fathom {

namespace {

// Two running sums of eight 32-bit numbers each.
struct Sums {
  __m256i high;
  __m256i low;
};

FATHOM_AVX2 inline void add_products(Sums& sums, __m256i pixels, __m256i high, __m256i low) {
  sums.high = _mm256_add_epi32(sums.high, _mm256_madd_epi16(pixels, high));
  sums.low = _mm256_add_epi32(sums.low, _mm256_madd_epi16(pixels, low));
}

// (high · 2^11 + low + half) >> 22, not yet limited to a byte.
FATHOM_AVX2 inline __m256i finish(const Sums& sums) {
  const __m256i half = _mm256_set1_epi32(1 << (kWeightBits - 1));
  const __m256i whole = _mm256_add_epi32(_mm256_slli_epi32(sums.high, kLowBits), sums.low);
  return _mm256_srai_epi32(_mm256_add_epi32(whole, half), kWeightBits);
}

// Four 16-bit weights: the first pair in every 32-bit lane of the lower half, the second in the upper.
FATHOM_AVX2 inline __m256i spread_weights(const int16_t* four) {
  int64_t packed;
  std::memcpy(&packed, four, sizeof packed);
  const __m256i lanes = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  return _mm256_permutevar8x32_epi32(_mm256_set1_epi64x(packed), lanes);
}

// Four RGB pixels (16 bytes are read) as 16-bit pairs: (r0 r1)(g0 g1)(b0 b1)(0 0) | the same of pixels 2, 3.
FATHOM_AVX2 inline __m256i pair_pixels(const uint8_t* rgb) {
  const __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rgb)));
  const __m256i order = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                                         6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
  return _mm256_shuffle_epi8(bytes, order);
}

// The red, green and blue sums of one output pixel, as the lowest three bytes.
FATHOM_AVX2 inline uint32_t pack_pixel(const Sums& sums) {
  const Sums folded = {_mm256_add_epi32(sums.high, _mm256_permute2x128_si256(sums.high, sums.high, 1)),
                       _mm256_add_epi32(sums.low, _mm256_permute2x128_si256(sums.low, sums.low, 1))};
  const __m128i values = _mm256_castsi256_si128(finish(folded));
  const __m128i words = _mm_packs_epi32(values, values);
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_packus_epi16(words, words)));
}

// Pixels of four bytes (red, green, blue, nothing) into three planes.
FATHOM_AVX2 void split_planes(const uint32_t* pixels, int64_t width, uint8_t* out) {
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  int64_t x = 0;
  for (; x + 4 <= width; x += 4) {
    const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels + x));
    const __m128i planes = _mm_shuffle_epi8(four, order);
    _mm_storeu_si32(out + x, planes);
    _mm_storeu_si32(out + width + x, _mm_srli_si128(planes, 4));
    _mm_storeu_si32(out + 2 * width + x, _mm_srli_si128(planes, 8));
  }
  for (; x < width; ++x) {
    for (int channel = 0; channel < 3; ++channel) {
      out[channel * width + x] = static_cast<uint8_t>(pixels[x] >> (8 * channel));
    }
  }
}

FATHOM_AVX2 void horizontal(const HorizontalRows& rows, const ResampleWeights& weights) {
  const int64_t width = weights.size();
  const int16_t* high = weights.high.data();
  const int16_t* low = weights.low.data();
  for (int64_t x = 0; x < width; ++x) {
    Sums sums[kRowGroup];
#pragma GCC unroll 4
    for (Sums& sum : sums) sum = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    const int64_t offset = int64_t{weights.first[x]} * 3;
    for (int64_t k = 0; k < weights.num_taps; k += kTapGroup, high += kTapGroup, low += kTapGroup) {
      const __m256i high_weights = spread_weights(high);
      const __m256i low_weights = spread_weights(low);
#pragma GCC unroll 4  // keeps the sums in registers
      for (int64_t r = 0; r < kRowGroup; ++r) {
        add_products(sums[r], pair_pixels(rows.in[r] + offset + k * 3), high_weights, low_weights);
      }
    }
#pragma GCC unroll 4
    for (int64_t r = 0; r < kRowGroup; ++r) rows.scratch[r][x] = pack_pixel(sums[r]);
  }
  for (int64_t r = 0; r < kRowGroup; ++r) split_planes(rows.scratch[r], width, rows.out[r]);
}

FATHOM_AVX2 inline __m256i weight_pair(const int16_t* weights) {
  int32_t pair;
  std::memcpy(&pair, weights, sizeof pair);
  return _mm256_set1_epi32(pair);
}

// Sixteen columns, from two accumulators of eight.
FATHOM_AVX2 __m128i vertical_columns(const VerticalRow& row, const uint8_t* in, const int16_t* high,
                                     const int16_t* low, int64_t num_taps) {
  Sums left = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  Sums right = left;
  for (int64_t k = 0; k < num_taps; k += 2, in += 2 * row.stride) {
    // Where the last pair has one row only, its second weight is zero.
    const uint8_t* next = k + 1 < num_taps ? in + row.stride : in;
    const __m128i upper = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    const __m128i lower = _mm_loadu_si128(reinterpret_cast<const __m128i*>(next));
    const __m256i high_weights = weight_pair(high + k);
    const __m256i low_weights = weight_pair(low + k);
    add_products(left, _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(upper, lower)), high_weights, low_weights);
    add_products(right, _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(upper, lower)), high_weights, low_weights);
  }
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(finish(left), finish(right)), 0xD8);
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

FATHOM_AVX2 void vertical(const VerticalRow& row, const ResampleWeights& weights, int64_t y) {
  const int64_t first = weights.first[y];
  const int64_t num_taps = std::min(weights.num_taps, row.num_rows - first);
  const int16_t* high = weights.high.data() + y * weights.num_taps;
  const int16_t* low = weights.low.data() + y * weights.num_taps;
  const uint8_t* in = row.in + first * row.stride;
  int64_t x = 0;
  for (; x + 16 <= row.row_bytes; x += 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row.out + x),
                     vertical_columns(row, in + x, high, low, num_taps));
  }
  if (x == row.row_bytes) return;
  alignas(16) uint8_t last[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(last), vertical_columns(row, in + x, high, low, num_taps));
  std::copy_n(last, row.row_bytes - x, row.out + x);
}

}  // namespace

const ResampleKernels kAvx2Resample = {horizontal, vertical};

}  // namespace fathom
