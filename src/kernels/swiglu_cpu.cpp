#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "kernels/cpu_vector.h"
#include "kernels/swiglu.h"

namespace fathom::kernels {
namespace {

template <typename T>
FATHOM_CPU_CLONES void forward_row(const T* gate, const T* up, T* y, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const auto g = load(gate[i]);
    store(y[i], g * sigmoid(g) * load(up[i]));
  }
}

template <typename T>
FATHOM_CPU_CLONES void backward_row(const T* grad, const T* gate, const T* up, T* grad_gate, T* grad_up,
                                    int64_t size) {
  using C = Compute<T>;
  for (int64_t i = 0; i < size; ++i) {
    const C g = load(gate[i]), d = load(grad[i]), s = sigmoid(g);
    store(grad_gate[i], d * load(up[i]) * s * (C(1) + g * (C(1) - s)));
    store(grad_up[i], d * g * s);
  }
}

at::Tensor forward_cpu(const at::Tensor& gate_up_in) {
  const auto gate_up = gate_up_in.contiguous();
  auto shape = gate_up.sizes().vec();
  const int64_t size = shape.back() /= 2;
  auto y = at::empty(shape, gate_up.options());
  const int64_t rows = y.numel() / std::max<int64_t>(1, size);
  dispatch_floating(y.scalar_type(), "swiglu", [&]<typename T>(T) {
    at::parallel_for(0, rows, row_grain(2 * size), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* gate = gate_up.const_data_ptr<T>() + 2 * row * size;
        forward_row(gate, gate + size, y.mutable_data_ptr<T>() + row * size, size);
      }
    });
  });
  return y;
}

at::Tensor backward_cpu(const at::Tensor& grad_in, const at::Tensor& gate_up_in) {
  const auto grad = grad_in.contiguous(), gate_up = gate_up_in.contiguous();
  auto result = at::empty_like(gate_up);
  const int64_t size = grad.size(-1), rows = grad.numel() / std::max<int64_t>(1, size);
  dispatch_floating(grad.scalar_type(), "swiglu", [&]<typename T>(T) {
    at::parallel_for(0, rows, row_grain(2 * size), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* gate = gate_up.const_data_ptr<T>() + 2 * row * size;
        T* grad_gate = result.mutable_data_ptr<T>() + 2 * row * size;
        backward_row(grad.const_data_ptr<T>() + row * size, gate, gate + size, grad_gate, grad_gate + size,
                     size);
      }
    });
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("swiglu", forward_cpu);
  library.impl("swiglu_backward", backward_cpu);
}

}  // namespace fathom::kernels
