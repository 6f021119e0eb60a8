// Rows of a head as a warp's attention multiplies them, in pieces of 32 elements.
//
// The order of a sum's terms and of a result's columns is free, so rows move in pieces of 16 bytes: lane
// 4g + t holds elements 8t … 8t+7 of places 8n + g, in both operands of products over the head size, in a
// right operand of products over places (which is such a piece transposed) and in results.
#pragma once

#include "cuda/warp_products.cuh"

namespace fathom::cuda {

constexpr float kLog2OfE = 1.4426950408889634f;

template <typename T>
__device__ uint4 load16(const T* row) {
  return __ldg(reinterpret_cast<const uint4*>(row));
}
__device__ inline uint4 transposed(const uint4& x) {
  return make_uint4(transposed(x.x), transposed(x.y), transposed(x.z), transposed(x.w));
}

/// Sixteen places as the left operand of a product over the head size.
template <typename T>
struct RowOperand {
  uint32_t a[2][4];

  __device__ RowOperand(const uint4& low, const uint4& high)
      : a{{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}} {}
  /// c += rows · (eight places)ᵀ
  __device__ void times(float (&c)[4], const uint4& b) const {
    multiply_add<T>(c, a[0], b.x, b.y);
    multiply_add<T>(c, a[1], b.z, b.w);
  }
};

/// c += a · (sixteen places), whose pieces `low` and `high` are transposed; c[i]: columns 8t + 2i, 8t + 2i
/// + 1.
template <typename T>
__device__ void multiply_places(float (&c)[4][4], const uint32_t (&a)[4], const uint4& low,
                                const uint4& high) {
  multiply_add<T>(c[0], a, low.x, high.x);
  multiply_add<T>(c[1], a, low.y, high.y);
  multiply_add<T>(c[2], a, low.z, high.z);
  multiply_add<T>(c[3], a, low.w, high.w);
}
/// The same of eight places; `low`, `high`: rows g and g + 8 of a.
template <typename T>
__device__ void multiply_places8(float (&c)[4][4], uint32_t low, uint32_t high, const uint4& places) {
  multiply_add8<T>(c[0], low, high, places.x);
  multiply_add8<T>(c[1], low, high, places.y);
  multiply_add8<T>(c[2], low, high, places.z);
  multiply_add8<T>(c[3], low, high, places.w);
}

/// Row g (`half` 0) or g + 8 (`half` 1) of a result.
template <typename T>
__device__ void store16(T* row, const float (&c)[4][4], int half, float factor) {
  const int j = 2 * half;
  *reinterpret_cast<uint4*>(row) = make_uint4(
      pack<T>(c[0][j] * factor, c[0][j + 1] * factor), pack<T>(c[1][j] * factor, c[1][j + 1] * factor),
      pack<T>(c[2][j] * factor, c[2][j + 1] * factor), pack<T>(c[3][j] * factor, c[3][j + 1] * factor));
}

/// Scores' tile `n` as the left operand of products over keys: rows g and g + 8.
template <typename T, int kHalves>
__device__ void pack_rows(const float (&s)[4], uint32_t& low, uint32_t& high) {
  low = pack<T>(s[0], s[1]);
  high = kHalves == 2 ? pack<T>(s[2], s[3]) : 0;
}

}  // namespace fathom::cuda
