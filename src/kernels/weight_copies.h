// Weights and biases in the 16-bit type of products, made once a step (where nothing learns: once) instead of
// in every pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "kernels/product_type.h"

namespace fathom::kernels {

/// What tells one content of a tensor from another: every change through LibTorch raises the version.
struct TensorContent {
  int64_t version = -1;
  const void* place = nullptr;
  c10::Storage storage = {};  ///< keeps the place from being given to another content

  static TensorContent of(const at::Tensor& x);
  bool is_of(const at::Tensor& x) const;
};

/// Copies of float32 weights that equal a cast of what the weights hold; one to FP16 saturates, and each time
/// that a copy is written what saturates is counted, as `saturated_half` does. A copy is made when it is
/// first asked for, keeps its place in memory, and is cast anew, before anyone gets it, where its weight has
/// changed since: by the weight's version, which every change through LibTorch raises (who writes through raw
/// pointers raises it), and by where its elements lie. An optimizer that writes copies in the pass that
/// changes the weights (`adamw_step`) says so by `follow`.
///
/// A recorded step (DeviceGraph) reads copies and writes both, and replaying it raises no version, so they
/// stay in step. What else changes weights does so between replays: call `refresh` before each. A copy that
/// was made after a recording is not written by it: record anew when `size` has grown.
///
/// One thread at a time.
class WeightCopies {
 public:
  /// Of those of `weights` that are dense float32. `type`: float16 or bfloat16. `saturated`: the count, an
  /// int64 scalar on the weights' device, or undefined.
  WeightCopies(const std::vector<at::Tensor>& weights, at::ScalarType type, const at::Tensor& saturated = {});

  /// The copy of `weight`, up to date; undefined for another type and for what is none of the weights. Has no
  /// gradient. Must not be written.
  at::Tensor of(const at::Tensor& weight, at::ScalarType type);
  /// Casts anew what has changed.
  void refresh();
  /// The copy of `weight` as it is; undefined where nobody has asked for it.
  at::Tensor kept(const at::Tensor& weight) const;
  /// The copy of `weight`, if there is one, has just been written with it.
  void follow(const at::Tensor& weight);
  /// Who writes copies adds to it what saturates; or undefined.
  const at::Tensor& saturated() const { return saturated_; }
  /// Copies so far.
  int64_t size() const { return size_; }

 private:
  struct Entry {
    at::Tensor weight;  ///< keeps the key from being given to another tensor
    at::Tensor copy;    ///< undefined until asked for
    TensorContent copied;
  };

  void refresh(Entry& entry);

  std::unordered_map<const at::TensorImpl*, Entry> entries_;
  at::ScalarType type_;
  at::Tensor saturated_;
  int64_t size_ = 0;
};

/// `weight` in `type`: its copy where `copies` (or null) has one, otherwise a cast, which saturates in FP16.
/// No gradient.
at::Tensor narrowed_weight(const at::Tensor& weight, at::ScalarType type, WeightCopies* copies);
/// `weight` as an operand in FP16: its copy likewise, otherwise a cast that is counted (`saturated_half`).
at::Tensor half_weight(const at::Tensor& weight, const Products& products, WeightCopies* copies);

}  // namespace fathom::kernels
