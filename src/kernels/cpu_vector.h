// What the CPU kernels share: loops compiled once for each level of instructions, and element types.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "base/error.h"
#include "tensor/host_device.h"

#if defined(__GNUC__) && !defined(__clang__) && !defined(_OPENMP)
#error "at::parallel_for is a plain loop without -fopenmp"
#endif

/// Compiles a function for AVX-512, AVX2 and the portable baseline; the loader picks. What it calls must be
/// inlined to profit.
#define FATHOM_CPU_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

namespace fathom::kernels {

/// Type in which elements of type T are computed with.
template <typename T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Partial sums of a reduction: independent, so that the loop over them becomes vector instructions.
constexpr int64_t kLanes = 32;

template <typename T>
FATHOM_INLINE Compute<T> load(const T& x) {
  if constexpr (std::is_same_v<T, c10::BFloat16>) {
    return std::bit_cast<float>(static_cast<uint32_t>(x.x) << 16);
  } else {
    return static_cast<Compute<T>>(x);
  }
}

template <typename T>
FATHOM_INLINE void store(T& to, Compute<T> x) {
  if constexpr (std::is_same_v<T,
                               c10::BFloat16>) {  // to nearest even; without a branch, so that it vectorises
    const auto bits = std::bit_cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    to.x = static_cast<uint16_t>(x == x ? rounded : 0x7fc0);
  } else {
    to = static_cast<T>(x);
  }
}

/// In independent lanes; its error grows with size / kLanes.
template <typename T>
FATHOM_INLINE Compute<T> sum_of_squares(const T* x, int64_t size) {
  Compute<T> lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += load(x[i + j]) * load(x[i + j]);
  for (; i < size; ++i) lanes[0] += load(x[i]) * load(x[i]);
  Compute<T> sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

/// Of e^x = 2^n · P(r), |r| ≤ ln 2 / 2: P(r), and a number that has n in its low bits. |x| ≤ 88; `Number` is
/// float or a vector of such.
template <typename Number>
FATHOM_INLINE void exponent_parts(const Number& x, Number& p, Number& shifted) {
  shifted = x * 1.44269504f + 12582912.0f;  // 1.5 · 2²³: rounds to an integer
  const Number n = shifted - 12582912.0f;
  const Number r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
}

/// e^x to 2 units in the last place, without a branch; 0 below e^-87: a quotient of such numbers is denormal,
/// and a product with one takes some processors 150 cycles.
FATHOM_INLINE float fast_exp(float x) {
  const bool vanishes = x < -87.0f;
  float p, shifted;
  exponent_parts(std::min(std::max(x, -87.0f), 88.0f), p, shifted);
  const auto power =
      std::bit_cast<float>(std::bit_cast<int32_t>(p) + (std::bit_cast<int32_t>(shifted) << 23));
  return x == x ? (vanishes ? 0.0f : power) : x;
}
FATHOM_INLINE double fast_exp(double x) {
  return std::exp(x);
}

template <typename Scalar>
FATHOM_INLINE Scalar sigmoid(Scalar x) {
  return Scalar(1) / (Scalar(1) + fast_exp(-x));
}

/// Calls `body` with a value of the C++ type of `dtype`. Errors (kInternal): not a floating type of ours.
template <typename Body>
void dispatch_floating(at::ScalarType dtype, const char* op, const Body& body) {
  switch (dtype) {
    case at::kFloat:
      return body(float{});
    case at::kDouble:
      return body(double{});
    case at::kBFloat16:
      return body(c10::BFloat16{});
    case at::kHalf:
      return body(c10::Half{});
    default:
      fail(ErrorKind::kInternal, "[{}] expected floating elements, got {}", op, c10::toString(dtype));
  }
}

/// The type of `Compute`, for elements of type `dtype`.
inline at::ScalarType compute_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// Rows a task should have for at::parallel_for, so that one task moves some 32 K elements.
inline int64_t row_grain(int64_t row_elements) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, row_elements));
}

/// At most 64 chunks of rows for sums over them: of a size that does not depend on the number of threads, so
/// neither do the sums.
struct RowChunks {
  RowChunks(int64_t all_rows, int64_t row_elements)
      : rows(std::max<int64_t>(row_grain(row_elements), (all_rows + 63) / 64)),
        count((all_rows + rows - 1) / rows) {}
  int64_t rows;  ///< of each but the last
  int64_t count;
};

}  // namespace fathom::kernels
