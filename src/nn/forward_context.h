// What every layer's forward is told beside its input.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <optional>

#include "kernels/linear.h"

namespace fathom {

/// What a layer's result feeds, which decides its type where products have one of their own: the residual
/// stream or an activation function (`compute_dtype`), another product (that of operands), or a loss
/// (float32).
enum class Feeds { kStates, kProduct, kLoss };

/// The tokens that gates chose, by layer: bool [B, T]. For whoever draws, compares or repeats decisions.
struct GateTrace {
  std::map<int64_t, at::Tensor> active_BT;
};

/// Passed by reference down a model; a value, cheap to copy. The default is evaluation.
struct ForwardContext {
  /// Dropout and stochastic depth act only when `training` is set and `key_B` is defined.
  bool training = false;
  /// int64, one key a sample, on the input's device: a mix of (seed, step, sample). Masks are a pure function
  /// of (key, layer, position), so they do not change with the split into micro-batches or ranks, or on
  /// recompute.
  at::Tensor key_B = {};
  /// Type of activations and matrix products; without one, that of the parameters. Parameters of another type
  /// are cast where they are used, so float32 parameters under kBFloat16 collect float32 gradients.
  std::optional<at::ScalarType> compute_dtype = std::nullopt;
  /// Of products under a `compute_dtype` of 16 bits, where they have a type of their own.
  kernels::Products products = {};
  /// For layers of blocks that take part, of those of 16 bits; null: none multiplies in FP8.
  const kernels::Fp8Products* fp8 = nullptr;
  /// Weights and biases in the type of products, where somebody keeps them; null: they are cast.
  kernels::WeightCopies* copies = nullptr;
  /// Parameters rest, or change by what raises their versions (no recorded step does), so that what layers
  /// make of them alone may be kept from pass to pass where no gradient is asked for.
  bool settled = false;
  /// Where gradients of weights are to lie; null: anywhere.
  GradientRooms* rooms = nullptr;
  /// Float32 scalar on the device that the objective is multiplied with before its backward pass, so that
  /// small gradients survive in FP16; who takes the step divides by it. Undefined: 1.
  at::Tensor loss_scale = {};
  /// Keep only the inputs of each block and compute its inside again in the backward pass.
  bool checkpoint_blocks = false;
  /// int64 [B, T], the number of the text that each token belongs to, where a row holds several: they do not
  /// see each other. Undefined: one text a row.
  at::Tensor segment_BT = {};

  /// Share of the tokens that a gate skips which are computed all the same, to learn what they would have
  /// brought. Acts like dropout.
  double explore = 0;
  /// In training a gate's score has the gradient of what its token's values bring to others, too.
  bool score_values = false;
  /// What a sample of this batch weighs in the step's objective: 1 ÷ samples of the step, over all ranks.
  double sample_share = 0;
  GateTrace* gate_trace = nullptr;          ///< filled by gates
  const GateTrace* forced_gates = nullptr;  ///< taken for their decisions
  bool* waited = nullptr;  ///< set by a gate whose layer asks the device how many tokens it let through

  /// Of a linear layer of `x`.
  kernels::LinearTypes linear_types(const at::Tensor& x, Feeds feeds = Feeds::kStates) const {
    if (!products.narrow(x)) return {.copies = copies, .rooms = rooms};
    if (feeds == Feeds::kLoss) return {products, at::kFloat, copies, rooms};
    return {products, feeds == Feeds::kProduct ? *products.type : compute_dtype.value_or(at::kBFloat16),
            copies, rooms};
  }

  /// For what reshapes or casts `weight` before it multiplies: its copy in `type`, where one is kept and no
  /// gradient asked for, else the weight.
  at::Tensor narrowed(const at::Tensor& weight, at::ScalarType type) const {
    const bool asks = copies != nullptr && !products.type && !c10::GradMode::is_enabled();
    return asks ? kernels::narrowed_weight(weight, type, copies) : weight;
  }
  /// Whether a layer may keep what it has made of parameters alone.
  bool keeps() const { return settled && !c10::GradMode::is_enabled(); }

  bool drops() const { return training && key_B.defined(); }
  /// The objective, or a gradient that enters beside it, as the backward pass takes it.
  at::Tensor scaled(const at::Tensor& x) const { return loss_scale.defined() ? x.mul(loss_scale) : x; }
};

}  // namespace fathom
