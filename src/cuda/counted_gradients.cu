// Backward passes of counted_rows.cu: memory-bound, with grids that do not depend on the number of rows.
#include "cuda/counted_gradients.h"

#include "cuda/awaited.cuh"
#include "cuda/row_grid.h"
#include "cuda/score_formula.cuh"
#include "cuda/vectors.cuh"
#include "kernels/counted_slots.h"

namespace fathom::cuda {
namespace {

/// A warp a place: its gradient goes to its row, and what its row brought to its score.
template <typename T>
__global__ void __launch_bounds__(kThreads) merge_grad_kernel(Awaited<MergeGradArgs> awaited) {
  const MergeGradArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % 32, vectors = static_cast<int>(args.dim / kWidth), count = *args.count;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  const float price = args.multiplier != nullptr ? static_cast<float>(*args.multiplier) : 0.0f;
  for (int64_t place = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; place < args.places; place += step) {
    const int slot = args.slot[place];
    const bool active = slot >= 0 && slot < count, learns = args.grad_score != nullptr && slot >= 0;
    const auto* grad = static_cast<const Vector*>(args.grad) + place * vectors;
    const int64_t row = int64_t{slot} * vectors;
    float gain = 0;
    if (active || learns)
      for (int v = lane; v < vectors; v += 32) {
        const Vector g = grad[v];
        if (active) static_cast<Vector*>(args.grad_rows)[row + v] = g;
        if (!learns) continue;
        Vector part = {};
        if (args.part != nullptr) part = static_cast<const Vector*>(args.part)[row + v];
        const Vector added = static_cast<const Vector*>(args.added)[row + v];
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
          gain += to_float(g.values[i]) * (to_float(part.values[i]) + to_float(added.values[i]));
      }
    if (args.grad_score == nullptr) continue;
    gain = warp_sum(gain);
    if (lane != 0) continue;
    if (args.score == nullptr) {
      if (slot >= 0) args.grad_score[slot] = gain;
      continue;
    }
    if (slot == kernels::CountedSlots::kPadding) {
      args.grad_score[place] = 0;
      continue;
    }
    const float share =
        args.sequence_share != nullptr ? args.sequence_share[place / args.tokens] : args.share;
    gain = gain * (active ? 1.0f : args.explored_weight) + price * share;
    args.grad_score[place] = score_gradient(gain, args.score[place]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) swiglu_grad_kernel(Awaited<RowSwigluGradArgs> awaited) {
  const RowSwigluGradArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int64_t vectors = args.inner / kWidth, items = args.rows.start[args.rows.sequences] * vectors;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += step) {
    const int64_t first = item + item / vectors * vectors;
    const auto* x = static_cast<const Vector*>(args.gate_up) + first;
    const Vector gate = x[0], up = x[vectors], grad = static_cast<const Vector*>(args.grad)[item];
    Vector grad_gate, grad_up;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float g = to_float(gate.values[i]), above = to_float(grad.values[i]);
      const float sigmoid = 1 / (1 + __expf(-g));
      grad_gate.values[i] = from_float<T>(above * to_float(up.values[i]) * sigmoid * (1 + g * (1 - sigmoid)));
      grad_up.values[i] = from_float<T>(above * g * sigmoid);
    }
    auto* out = static_cast<Vector*>(args.grad_gate_up) + first;
    out[0] = grad_gate;
    out[vectors] = grad_up;
  }
}

/// A thread turns a vector of a head's first half back against that of its second, and packs them.
template <typename T>
__global__ void __launch_bounds__(kThreads) rope_grad_kernel(Awaited<RowRopeGradArgs> awaited) {
  const RowRopeGradArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int pairs = static_cast<int>(args.head_size / 2 / kWidth);
  const int queries = static_cast<int>(args.heads), keys = static_cast<int>(args.kv_heads);
  const int heads = queries + 2 * keys, tokens = static_cast<int>(args.rows.tokens);
  const int64_t items = int64_t{args.rows.start[args.rows.sequences]} * heads * pairs;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += step) {
    const int pair = static_cast<int>(item % pairs), head = static_cast<int>(item / pairs % heads);
    const int64_t row = item / pairs / heads;
    const bool is_query = head < queries, turns = head < queries + keys;
    const void* source = is_query ? args.grad_q : turns ? args.grad_k : args.grad_v;
    const int64_t place = is_query ? row * queries + head : row * keys + (head - queries) % keys;
    const auto* low = static_cast<const Vector*>(source) + place * 2 * pairs + pair;
    Vector a = low[0], b = low[pairs];
    if (turns) {
      const int64_t angle = (int64_t{args.rows.place[row] % tokens} * pairs + pair) * kWidth;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float x = to_float(a.values[i]), y = to_float(b.values[i]);
        const float cos = __ldg(args.cos + angle + i), sin = __ldg(args.sin + angle + i);
        a.values[i] = from_float<T>(x * cos + y * sin);
        b.values[i] = from_float<T>(y * cos - x * sin);
      }
    }
    auto* out = static_cast<Vector*>(args.grad_qkv) + (row * heads + head) * 2 * pairs + pair;
    out[0] = a;
    out[pairs] = b;
  }
}

template <typename T>
cudaError_t merge_grad(const MergeGradArgs& args, cudaStream_t stream) {
  launch_awaiting(merge_grad_kernel<T>, grid_of((args.places + kWarps - 1) / kWarps), kThreads, 0, stream,
                  args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t swiglu_grad(const RowSwigluGradArgs& args, cudaStream_t stream) {
  const int64_t room = args.rows.sequences * args.rows.tokens;
  launch_awaiting(swiglu_grad_kernel<T>, vector_grid(room * args.inner), kThreads, 0, stream, args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t rope_grad(const RowRopeGradArgs& args, cudaStream_t stream) {
  const int64_t heads = args.heads + 2 * args.kv_heads, room = args.rows.sequences * args.rows.tokens;
  launch_awaiting(rope_grad_kernel<T>, vector_grid(room * heads * args.head_size / 2), kThreads, 0, stream,
                  args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_merge_grad(ElementType type, const MergeGradArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return merge_grad<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? merge_grad<__half>(args, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_row_swiglu_grad(ElementType type, const RowSwigluGradArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return swiglu_grad<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? swiglu_grad<__half>(args, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_row_rope_grad(ElementType type, const RowRopeGradArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return rope_grad<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? rope_grad<__half>(args, stream) : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
