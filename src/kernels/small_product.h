// Products of small matrices that lie in the first cache. For `*_cpu.cpp` files, inside FATHOM_CPU_CLONES.
#pragma once

#include <cstdint>

#include "kernels/cpu_vector.h"

namespace fathom::kernels {

/// 32 bytes of numbers at any address: registers of AVX2, and of AVX-512, which has twice as many of them.
template <typename C>
struct Packed {
  typedef C Vector __attribute__((vector_size(32), aligned(alignof(C)), may_alias));
  static constexpr int64_t kSize = 32 / static_cast<int64_t>(sizeof(C));
};

/// c[r][j] = Σ_k a(r, k) · b[k][j], where a(r, k) = a[r · a_row + k · a_step]. `columns`: whole vectors.
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

/// R rows of V vectors, kept in registers.
template <int R, int V, typename C>
FATHOM_INLINE void product_tile(const SmallProduct<C>& of, int64_t row, int64_t column) {
  using Vector = typename Packed<C>::Vector;
  constexpr int64_t kSize = Packed<C>::kSize;
  const C* a = of.a + row * of.a_row;
  const C* b = of.b + column;
  Vector sums[R][V] = {};
  for (int64_t k = 0; k < of.depth; ++k, a += of.a_step, b += of.b_row) {
    Vector right[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) right[v] = *reinterpret_cast<const Vector*>(b + v * kSize);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const C left = a[r * of.a_row];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[r][v] += right[v] * left;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      *reinterpret_cast<Vector*>(of.c + (row + r) * of.c_row + column + v * kSize) = sums[r][v];
}

template <int V, typename C>
FATHOM_INLINE void product_columns(const SmallProduct<C>& of, int64_t column) {
  int64_t row = 0;
  for (; row + 4 <= of.rows; row += 4) product_tile<4, V>(of, row, column);
  for (; row < of.rows; ++row) product_tile<1, V>(of, row, column);
}

/// Twelve sums at a time hide what an addition takes, and leave registers for the factors.
template <typename C>
FATHOM_INLINE void multiply(const SmallProduct<C>& of) {
  constexpr int64_t kSize = Packed<C>::kSize;
  int64_t column = 0;
  for (int64_t left = of.columns / kSize; left > 0;) {
    const int64_t taken = left == 4 ? 2 : left < 3 ? left : 3;
    if (taken == 3)
      product_columns<3>(of, column);
    else if (taken == 2)
      product_columns<2>(of, column);
    else
      product_columns<1>(of, column);
    column += taken * kSize;
    left -= taken;
  }
}

}  // namespace fathom::kernels
