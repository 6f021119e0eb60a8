// Products of small matrices that lie in the first cache. For `*_cpu.cpp` files.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu_vector.h"

namespace fathom::kernels {

/// A register's numbers, at any address.
template <typename C, int bytes = 32>
struct Packed {
  typedef C Vector __attribute__((vector_size(bytes), aligned(alignof(C)), may_alias));
  static constexpr int64_t kSize = bytes / static_cast<int64_t>(sizeof(C));
};

/// c[r][j] = Σ_k a(r, k) · b[k][j], where a(r, k) = a[r · a_row + k · a_step]. `columns`: whole vectors of 32
/// bytes.
template <typename C>
struct SmallProduct {
  const C* a;
  int64_t a_row, a_step;
  const C* b;
  int64_t b_row;
  C* c;
  int64_t c_row;
  int64_t rows, depth, columns;
};

/// `kRows` rows of V vectors, kept in registers.
template <int bytes, int kRows, int V, typename C>
FATHOM_INLINE void product_tile(const SmallProduct<C>& of, int64_t row, int64_t column) {
  using Vector = typename Packed<C, bytes>::Vector;
  constexpr int64_t kSize = Packed<C, bytes>::kSize;
  const C* a = of.a + row * of.a_row;
  const C* b = of.b + column;
  Vector sums[kRows][V] = {};
  for (int64_t k = 0; k < of.depth; ++k, a += of.a_step, b += of.b_row) {
    Vector right[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) right[v] = *reinterpret_cast<const Vector*>(b + v * kSize);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const C left = a[r * of.a_row];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[r][v] += right[v] * left;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      *reinterpret_cast<Vector*>(of.c + (row + r) * of.c_row + column + v * kSize) = sums[r][v];
}

/// As many rows as are left, at most `kRows`.
template <int bytes, int kRows, int V, typename C>
FATHOM_INLINE void product_rows(const SmallProduct<C>& of, int64_t row, int64_t column, int64_t left) {
  if (left >= kRows)
    product_tile<bytes, kRows, V>(of, row, column);
  else if constexpr (kRows > 1)
    product_rows<bytes, kRows - 1, V>(of, row, column, left);
}

/// In even shares: 49 rows are seven times seven, not six times eight and one.
template <int bytes, int kRows, int V, typename C>
FATHOM_INLINE void product_columns(const SmallProduct<C>& of, int64_t column) {
  const int64_t tiles = (of.rows + kRows - 1) / kRows,
                share = (of.rows + tiles - 1) / std::max<int64_t>(1, tiles);
  for (int64_t row = 0; row < of.rows; row += share)
    product_rows<bytes, kRows, V>(of, row, column, std::min(share, of.rows - row));
}

/// From `column` on while whole vectors of so many bytes are left, `kRows` · 3 sums at a time: they hide what
/// an addition takes, and leave registers for the factors. Returns where it stopped.
template <int bytes, int kRows, typename C>
FATHOM_INLINE int64_t multiply_columns(const SmallProduct<C>& of, int64_t column) {
  constexpr int64_t kSize = Packed<C, bytes>::kSize;
  for (int64_t left = (of.columns - column) / kSize; left > 0;) {
    const int64_t taken = left == 4 ? 2 : left < 3 ? left : 3;
    if (taken == 3)
      product_columns<bytes, kRows, 3>(of, column);
    else if (taken == 2)
      product_columns<bytes, kRows, 2>(of, column);
    else
      product_columns<bytes, kRows, 1>(of, column);
    column += taken * kSize;
    left -= taken;
  }
  return column;
}

template <typename C>
FATHOM_CPU_CLONES void multiply_in_32_bytes(const SmallProduct<C>& of) {
  multiply_columns<32, 4>(of, 0);
}

/// Twice as wide registers, and twice as many.
template <typename C>
__attribute__((target("arch=x86-64-v4"))) void multiply_in_64_bytes(const SmallProduct<C>& of) {
  multiply_columns<32, 8>(of, multiply_columns<64, 8>(of, 0));
}

inline bool has_64_bytes() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512cd");
  return has;
}

template <typename C>
void multiply_small(const SmallProduct<C>& of) {
  return has_64_bytes() ? multiply_in_64_bytes(of) : multiply_in_32_bytes(of);
}

}  // namespace fathom::kernels
