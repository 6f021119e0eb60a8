// The choice between the fastest algorithms and those that add up in one order.
#pragma once

namespace fathom {

/// While it lives and `on`, LibTorch and our kernels are asked for algorithms that give the same bits in
/// every run on the same device and machine: cuDNN's and cuBLAS's, attention's gradients, sums at indices.
/// LibTorch throws where an operation of its own has no such algorithm (with a warning alone its attention
/// would still take the faster one). On a CPU there is nothing to choose. Process-wide: one at a time, made
/// before the first product on a GPU (cuBLAS reads its workspace's size then).
class Determinism {
 public:
  explicit Determinism(bool on);
  ~Determinism();
  Determinism(const Determinism&) = delete;
  Determinism& operator=(const Determinism&) = delete;

 private:
  bool on_;
};

}  // namespace fathom
