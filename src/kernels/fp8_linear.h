// y = x Wᵀ + b of operands in FP8.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <unordered_map>

#include "kernels/fp8_tiles.h"
#include "kernels/weight_copies.h"
#include "tensor/gradient_rooms.h"

namespace fathom::kernels {

/// Weights in E4M3, as they are and turned, made once a step though a step may take them several times
/// (micro-batches, blocks computed again). Call `forget` inside of what a recorded step records: its replays
/// change weights without raising their versions, and make what was forgotten anew. One thread at a time.
class Fp8Weights {
 public:
  /// Both with scales by tile. Must not be written.
  const Fp8Pair& of(const at::Tensor& weight, const at::Tensor& beyond);
  void forget() { entries_.clear(); }
  /// Weights since then.
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }

 private:
  struct Entry {
    at::Tensor weight;  ///< keeps the key from being given to another tensor
    TensorContent made;
    Fp8Pair pair;
  };
  std::unordered_map<const at::TensorImpl*, Entry> entries_;
};

/// How layers that take part multiply in FP8.
struct Fp8Products {
  at::ScalarType gradients = at::kFloat8_e4m3fn;  ///< or float8_e5m2; what goes forward is E4M3
  /// Products with fewer multiply-adds for each number of their three matrices stay as they are: turning the
  /// operands into FP8 would cost more than it saves. On an H100 of 2.4 TB/s, 750 TFLOP/s in BF16 and 1,200
  /// in FP8 both are equal near 550, of 650 and 1,150 near 420.
  double least_intensity = 512;
  Fp8Weights* weights = nullptr;  ///< null: weights are turned into FP8 in every pass
  at::Tensor beyond = {};  ///< int64 scalar on the device, or undefined: counts elements that no scale fits
};

/// Whether these are multiplied so: states in BF16, a float32 weight, sizes that are multiples of
/// `kFp8Multiple`, and `least_intensity`.
bool multiplies_in_fp8(const at::Tensor& x, const at::Tensor& weight, const Fp8Products& products);
/// The sizes alone, of so many rows.
bool multiplies_in_fp8(int64_t rows, const at::Tensor& weight, const Fp8Products& products);

/// `x`: bfloat16 [..., in]; `weight`: float32 [out, in]; `bias`: [out] or undefined, added as bfloat16; its
/// gradient is summed in float32 and has its type. Result: bfloat16. Operands are rounded to FP8 with a scale
/// for each tile, x, the weight and the gradient of y once each; sums are float32, and so is the weight's
/// gradient, which is written where `rooms` (or null) wants it. The backward pass takes rounded operands as
/// if they were exact, and keeps x in a byte a number. REQUIRES `multiplies_in_fp8`.
at::Tensor fp8_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const Fp8Products& products, GradientRooms* rooms);

}  // namespace fathom::kernels
