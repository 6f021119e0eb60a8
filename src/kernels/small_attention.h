// What attention among few places is made of: matrices of one head that lie in the caches, with rows of whole
// vectors. For `*_cpu.cpp` files.
#pragma once

#include <utility>

#include "kernels/cpu_vector.h"
#include "kernels/small_product.h"

namespace fathom::kernels {

/// Added to the score of a column that is not to be seen, or that is there to fill a vector.
constexpr double kNoPlace = -1e30;

template <typename C>
int64_t whole_vectors(int64_t size) {
  return (size + Packed<C>::kSize - 1) / Packed<C>::kSize * Packed<C>::kSize;
}

/// What `kApart` rows and `kApart` columns lie between changes places: of two rows that far apart, columns
/// `J`.
template <size_t kApart, typename Vector, size_t... J>
FATHOM_INLINE void swap_corners(Vector& upper, Vector& lower, std::index_sequence<J...> /*columns*/) {
  constexpr size_t kSize = sizeof...(J);
  const Vector a = upper, b = lower;
  upper = __builtin_shufflevector(a, b, ((J & kApart) ? kSize + J - kApart : J)...);
  lower = __builtin_shufflevector(a, b, ((J & kApart) ? kSize + J : J + kApart)...);
}

template <size_t kApart, int64_t kSize, typename Vector>
FATHOM_INLINE void swap_all_corners(Vector (&rows)[kSize]) {
  if constexpr (kApart < static_cast<size_t>(kSize)) {
#pragma GCC unroll 8
    for (size_t i = 0; i < static_cast<size_t>(kSize); ++i)
      if ((i & kApart) == 0)
        swap_corners<kApart>(rows[i], rows[i + kApart],
                             std::make_index_sequence<static_cast<size_t>(kSize)>());
    swap_all_corners<2 * kApart>(rows);
  }
}

/// [rows, from_row] → [columns, to_row]; rows and columns: whole vectors.
template <typename C>
FATHOM_CPU_CLONES void transpose_small(const C* from, int64_t from_row, C* to, int64_t to_row, int64_t rows,
                                       int64_t columns) {
  using Vector = typename Packed<C>::Vector;
  constexpr int64_t kSize = Packed<C>::kSize;
  for (int64_t i = 0; i < rows; i += kSize)
    for (int64_t j = 0; j < columns; j += kSize) {
      Vector block[kSize];
#pragma GCC unroll 8
      for (int64_t k = 0; k < kSize; ++k)
        block[k] = *reinterpret_cast<const Vector*>(from + (i + k) * from_row + j);
      swap_all_corners<1>(block);
#pragma GCC unroll 8
      for (int64_t k = 0; k < kSize; ++k) *reinterpret_cast<Vector*>(to + (j + k) * to_row + i) = block[k];
    }
}

/// x = e^x of each element, as fast_exp.
template <int bytes>
FATHOM_INLINE void take_exponent(typename Packed<float, bytes>::Vector& x) {
  using Vector = typename Packed<float, bytes>::Vector;
  using Integers = typename Packed<int32_t, bytes>::Vector;
  const Vector given = x;
  x = x < -87.0f ? Vector{} - 87.0f : x;
  x = x > 88.0f ? Vector{} + 88.0f : x;
  Vector p, shifted;
  exponent_parts(x, p, shifted);
  const auto power =
      reinterpret_cast<Vector>(reinterpret_cast<Integers>(p) + (reinterpret_cast<Integers>(shifted) << 23));
  x = given < -87.0f ? Vector{} : power;
  x = given == given ? x : given;
}
template <int bytes>
FATHOM_INLINE void take_exponent(typename Packed<double, bytes>::Vector& x) {
  for (int64_t i = 0; i < Packed<double, bytes>::kSize; ++i) x[i] = fast_exp(x[i]);
}

template <size_t kHalf, typename Vector, typename Join, size_t... J>
FATHOM_INLINE void join_halves(Vector& x, const Join& join, std::index_sequence<J...> columns) {
  if constexpr (kHalf > 0) {
    const Vector other = __builtin_shufflevector(x, x, (J ^ kHalf)...);
    join(x, other);
    join_halves<kHalf / 2>(x, join, columns);
  }
}

/// What `join` leaves of a vector's elements.
template <typename C, int bytes, typename Join>
FATHOM_INLINE C joined(typename Packed<C, bytes>::Vector& x, const Join& join) {
  constexpr auto kSize = static_cast<size_t>(Packed<C, bytes>::kSize);
  join_halves<kSize / 2>(x, join, std::make_index_sequence<kSize>());
  return x[0];
}

struct Larger {
  template <typename Number>
  FATHOM_INLINE void operator()(Number& a, const Number& b) const {
    a = a > b ? a : b;
  }
};
struct Sum {
  template <typename Number>
  FATHOM_INLINE void operator()(Number& a, const Number& b) const {
    a += b;
  }
};

/// Rows of scores and what is added to them; `columns`: whole vectors.
template <typename C>
struct SmallScores {
  C* scores;
  const C* added;
  int64_t added_row;    ///< 0 where all rows have the same
  const C* also_added;  ///< like `scores`, or null
  int64_t rows, columns;
};

/// Adds to a row what is to be added, from `column` on; returns the largest.
template <int bytes, typename C>
FATHOM_INLINE C add_to_scores(const SmallScores<C>& of, int64_t row, int64_t column) {
  using Vector = typename Packed<C, bytes>::Vector;
  constexpr int64_t kSize = Packed<C, bytes>::kSize;
  C* scores = of.scores + row * of.columns;
  const C *added = of.added + row * of.added_row,
          *also_added = of.also_added ? of.also_added + row * of.columns : nullptr;
  Vector top = Vector{} + C(kNoPlace);
  for (; column + kSize <= of.columns; column += kSize) {
    Vector x =
        *reinterpret_cast<const Vector*>(scores + column) + *reinterpret_cast<const Vector*>(added + column);
    if (also_added != nullptr) x += *reinterpret_cast<const Vector*>(also_added + column);
    *reinterpret_cast<Vector*>(scores + column) = x;
    top = x > top ? x : top;
  }
  C most = joined<C, bytes>(top, Larger());
  if constexpr (bytes > 32) {
    if (column < of.columns) Larger()(most, add_to_scores<32>(of, row, column));
  }
  return most;
}

/// e^(score − top) of a row from `column` on; returns their sum.
template <int bytes, typename C>
FATHOM_INLINE C take_exponents(const SmallScores<C>& of, int64_t row, int64_t column, C top) {
  using Vector = typename Packed<C, bytes>::Vector;
  constexpr int64_t kSize = Packed<C, bytes>::kSize;
  C* scores = of.scores + row * of.columns;
  Vector sum = {};
  for (; column + kSize <= of.columns; column += kSize) {
    Vector x = *reinterpret_cast<const Vector*>(scores + column) - top;
    take_exponent<bytes>(x);
    *reinterpret_cast<Vector*>(scores + column) = x;
    sum += x;
  }
  const C all = joined<C, bytes>(sum, Sum());
  if constexpr (bytes > 32) {
    if (column < of.columns) return all + take_exponents<32>(of, row, column, top);
  }
  return all;
}

template <int bytes, typename C>
FATHOM_INLINE void softmax_rows(const SmallScores<C>& of) {
  for (int64_t row = 0; row < of.rows; ++row) {
    const C top = add_to_scores<bytes>(of, row, 0), sum = take_exponents<bytes>(of, row, 0, top);
    const C inverse = top > C(kNoPlace / 2) ? C(1) / sum : C(0);
    C* scores = of.scores + row * of.columns;
    for (int64_t i = 0; i < of.columns; ++i) scores[i] *= inverse;
  }
}

template <typename C>
FATHOM_CPU_CLONES void softmax_in_32_bytes(const SmallScores<C>& of) {
  softmax_rows<32>(of);
}

template <typename C>
__attribute__((target("arch=x86-64-v4"))) void softmax_in_64_bytes(const SmallScores<C>& of) {
  softmax_rows<64>(of);
}

/// softmax of each row, in place. Zeros where all is kNoPlace.
template <typename C>
void softmax_small(const SmallScores<C>& of) {
  return has_64_bytes() ? softmax_in_64_bytes(of) : softmax_in_32_bytes(of);
}

/// The gradient of the scores from that of p, in place; adds it to the bias's, unless that is null.
template <typename C>
FATHOM_CPU_CLONES void softmax_small_backward(C* __restrict grad, const C* __restrict p,
                                              C* __restrict grad_bias, int64_t rows, int64_t columns) {
  constexpr int64_t kSize = Packed<C>::kSize;
  for (int64_t row = 0; row < rows; ++row, grad += columns, p += columns) {
    C lanes[kSize] = {};
    for (int64_t i = 0; i < columns; i += kSize)
      for (int64_t j = 0; j < kSize; ++j) lanes[j] += grad[i + j] * p[i + j];
    C sum = 0;
    for (int64_t j = 0; j < kSize; ++j) sum += lanes[j];
    for (int64_t i = 0; i < columns; ++i) grad[i] = p[i] * (grad[i] - sum);
    if (grad_bias != nullptr)
      for (int64_t i = 0; i < columns; ++i) grad_bias[row * columns + i] += grad[i];
  }
}

}  // namespace fathom::kernels
