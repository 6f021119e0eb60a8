#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>

#include "kernels/cpu_vector.h"
#include "kernels/dense_rows.h"
#include "kernels/rope_heads.h"

namespace fathom::kernels {
namespace {

/// One head of one token: (x₁, x₂) → (x₁ cos − x₂ sin, x₂ cos + x₁ sin); `direction` −1 turns back.
template <typename T>
FATHOM_CPU_CLONES void rotate(const T* x, T* y, const float* cos, const float* sin, int64_t half,
                              float direction) {
  for (int64_t i = 0; i < half; ++i) {
    const Compute<T> first = load(x[i]), second = load(x[half + i]);
    const Compute<T> c = cos[i], s = sin[i] * direction;
    store(y[i], first * c - second * s);
    store(y[half + i], second * c + first * s);
  }
}

Heads forward_cpu(const at::Tensor& qkv_in, const at::Tensor& cos_in, const at::Tensor& sin_in, int64_t heads,
                  int64_t kv_heads) {
  const auto qkv = qkv_in.contiguous(), cos = cos_in.contiguous(), sin = sin_in.contiguous();
  const int64_t batch = qkv.size(0), tokens = qkv.size(1), slots = heads + 2 * kv_heads;
  const int64_t size = qkv.size(2) / slots;
  auto q = at::empty({batch, heads, tokens, size}, qkv.options());
  auto k = at::empty({batch, kv_heads, tokens, size}, qkv.options());
  auto v = at::empty({batch, kv_heads, tokens, size}, qkv.options());
  dispatch_floating(qkv.scalar_type(), "rope_heads", [&]<typename T>(T) {
    const T* from = qkv.const_data_ptr<T>();
    T *to_q = q.mutable_data_ptr<T>(), *to_k = k.mutable_data_ptr<T>(), *to_v = v.mutable_data_ptr<T>();
    at::parallel_for(0, batch * tokens, row_grain(slots * size), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t b = row / tokens, t = row % tokens;
        const float* angles[] = {cos.const_data_ptr<float>() + t * size / 2,
                                 sin.const_data_ptr<float>() + t * size / 2};
        const T* x = from + row * slots * size;
        for (int64_t h = 0; h < heads; ++h, x += size)
          rotate(x, to_q + ((b * heads + h) * tokens + t) * size, angles[0], angles[1], size / 2, 1);
        for (int64_t h = 0; h < kv_heads; ++h, x += size)
          rotate(x, to_k + ((b * kv_heads + h) * tokens + t) * size, angles[0], angles[1], size / 2, 1);
        for (int64_t h = 0; h < kv_heads; ++h, x += size)
          std::memcpy(to_v + ((b * kv_heads + h) * tokens + t) * size, x,
                      static_cast<size_t>(size) * sizeof(T));
      }
    });
  });
  return {q, k, v};
}

/// Start of row (b, h, t) of [B, heads, T, E] with any strides but the last.
template <typename T>
const T* row_of(const at::Tensor& x, int64_t b, int64_t h, int64_t t) {
  return x.const_data_ptr<T>() + b * x.stride(0) + h * x.stride(1) + t * x.stride(2);
}

at::Tensor backward_cpu(const at::Tensor& grad_q, const at::Tensor& grad_k, const at::Tensor& grad_v,
                        const at::Tensor& cos_in, const at::Tensor& sin_in) {
  const auto q = with_dense_rows(grad_q), k = with_dense_rows(grad_k), v = with_dense_rows(grad_v);
  const auto cos = cos_in.contiguous(), sin = sin_in.contiguous();
  const int64_t batch = q.size(0), heads = q.size(1), kv_heads = k.size(1), tokens = q.size(2),
                size = q.size(3), slots = heads + 2 * kv_heads;
  auto result = at::empty({batch, tokens, slots * size}, q.options());
  dispatch_floating(q.scalar_type(), "rope_heads", [&]<typename T>(T) {
    T* to = result.mutable_data_ptr<T>();
    at::parallel_for(0, batch * tokens, row_grain(slots * size), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t b = row / tokens, t = row % tokens;
        const float* angles[] = {cos.const_data_ptr<float>() + t * size / 2,
                                 sin.const_data_ptr<float>() + t * size / 2};
        T* y = to + row * slots * size;
        for (int64_t h = 0; h < heads; ++h, y += size)
          rotate(row_of<T>(q, b, h, t), y, angles[0], angles[1], size / 2, -1);
        for (int64_t h = 0; h < kv_heads; ++h, y += size)
          rotate(row_of<T>(k, b, h, t), y, angles[0], angles[1], size / 2, -1);
        for (int64_t h = 0; h < kv_heads; ++h, y += size)
          std::memcpy(y, row_of<T>(v, b, h, t), static_cast<size_t>(size) * sizeof(T));
      }
    });
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("rope_heads", forward_cpu);
  library.impl("rope_heads_backward", backward_cpu);
}

}  // namespace fathom::kernels
