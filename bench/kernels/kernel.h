// What bench_kernels measures: an operation of src/kernels on operands of one size, and what it costs at
// least.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace fathom::bench {

/// What a pass costs at least.
struct Cost {
  double numbers = 0;  ///< read and written, of the type that is measured
  double flops = 0;
};

struct Kernel {
  std::string name;
  std::vector<at::Tensor> inputs;  ///< those that may have gradients
  std::function<std::vector<at::Tensor>()> forward;
  Cost forward_cost;
  Cost backward_cost = {};  ///< zero: no backward pass
  double rate = 1;          ///< of products, in rates of the type that is measured
  std::string weight = {};  ///< of a product: [out, in], where the name does not say it
};

/// Makes the operands of all operations.
struct Operands {
  at::TensorOptions options;  ///< of floating-point ones
  int64_t rows, dim;
  int64_t sequence = 2048;  ///< tokens, where there are as many rows

  at::Tensor random(at::IntArrayRef sizes) const {
    return at::randn(sizes, options.dtype(at::kFloat)).to(options.dtype()).requires_grad_();
  }
  int64_t tokens() const { return std::min(rows, sequence); }
  int64_t batch() const { return rows / tokens(); }
  int64_t heads() const { return std::max<int64_t>(1, dim / 64); }
  double numbers() const { return static_cast<double>(batch() * tokens() * dim); }
};

/// Causal attention as models take it, or LibTorch's way for the device.
Kernel attention_kernel(const Operands& make, bool is_libtorch);

/// Attention inside shifted windows of maps: the fused kernel, or the three operations that it stands for.
Kernel window_kernel(const Operands& make);

/// A linear layer of four times its inputs' width; with GELU behind it, whose training pass keeps the
/// product's result; and a whole feed-forward layer of that kind.
Kernel linear_kernel(const Operands& make);
Kernel linear_gelu_kernel(const Operands& make);
Kernel gelu_mlp_kernel(const Operands& make);
/// The first half of a feed-forward layer with gates, of 11/4 of its inputs' width, as decoders have it.
Kernel linear_swiglu_kernel(const Operands& make);
/// `linear` of operands in FP16, which writes BF16; its backward pass writes FP16.
Kernel half_linear_kernel(const Operands& make);

/// Products of counted rows, where there are kernels for them: those of a decoder's layer whose gate lets two
/// tokens in five through, forward, and the gradients of their rows and of their weights.
std::vector<Kernel> counted_kernels(const Operands& make);

}  // namespace fathom::bench
