// The gradient of packed queries, keys and values is a product's operand: turned back and written in FP8 at
// once.
#include "cuda/fp8_rope_heads.h"

#include "cuda/fp8_tile.cuh"
#include "cuda/rope_formula.cuh"

namespace fathom::cuda {
namespace {

using State = __nv_bfloat16;

/// Where a thread's columns of the packed heads come from: a vector of one half of a head, which turns
/// against that of the other half.
struct HalfHead {
  HeadsPlace heads;
  int64_t own, partner;  ///< in a token
  unsigned angle;        ///< in a token's angles
  bool turns, is_low;

  __device__ HalfHead(const RopeHeadsArgs& args, unsigned column) {
    const auto size = static_cast<unsigned>(args.head_size), half = size / 2;
    const auto queries = static_cast<unsigned>(args.heads), keys = static_cast<unsigned>(args.kv_heads);
    const unsigned slot = column / size, inner = column % size;
    turns = slot < queries + keys;
    heads = slot < queries ? args.q : turns ? args.k : args.v;
    const unsigned head = slot < queries ? slot : turns ? slot - queries : slot - queries - keys;
    is_low = inner < half;
    angle = is_low ? inner : inner - half;
    own = head * heads.head_stride + inner;
    partner = is_low ? own + half : own - half;
  }
};

template <__nv_fp8_interpretation_t kFormat>
__global__ void __launch_bounds__(kFp8Threads, 3) fp8_rope_heads_grad_kernel(Fp8RopeHeadsArgs args) {
  __shared__ alignas(16) uint32_t tile[kFp8Side * kFp8Words];
  const Fp8Place place = fp8_place();
  const Fp8Result& result = args.result;
  const HalfHead part(args.heads, static_cast<unsigned>(min(place.own_column(), result.columns - kFp8Width)));
  const auto tokens = static_cast<unsigned>(args.heads.tokens);
  const auto token_at = [&](int turn) {
    const auto row = static_cast<unsigned>(place.row) + place.tile_row(turn);
    return row / tokens * part.heads.batch_stride + row % tokens * part.heads.token_stride;
  };
  const auto* grads = static_cast<const State*>(part.heads.data);
  Fp8Held<State> held = {};
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i)
    if (place.is_inside(i, result.rows, result.columns))
      held.rows[i] = *reinterpret_cast<const Elements<State, kFp8Width>*>(grads + token_at(i) + part.own);
  if (part.turns) {
    const float back = part.is_low ? 1 : -1;
#pragma unroll
    for (int i = 0; i < kFp8Turns; ++i) {
      if (!place.is_inside(i, result.rows, result.columns)) continue;
      // Beside this thread's own, so the row's other threads have brought it to the first cache.
      const auto partner =
          *reinterpret_cast<const Elements<State, kFp8Width>*>(grads + token_at(i) + part.partner);
      const unsigned token = (static_cast<unsigned>(place.row) + place.tile_row(i)) % tokens;
      const int64_t angle = token * (args.heads.head_size / 2) + part.angle;
      const auto cos = *reinterpret_cast<const Elements<float, kFp8Width>*>(args.heads.cos + angle),
                 sin = *reinterpret_cast<const Elements<float, kFp8Width>*>(args.heads.sin + angle);
#pragma unroll
      for (int j = 0; j < kFp8Width; ++j)
        held.rows[i].values[j] =
            from_float<State>(turned(to_float(held.rows[i].values[j]), to_float(partner.values[j]),
                                     cos.values[j], back * sin.values[j]));
    }
  }
  write_fp8_tile<kFormat>(held, place, result, tile);
}

}  // namespace

cudaError_t launch_fp8_rope_heads_grad(Fp8Format format, const Fp8RopeHeadsArgs& args, cudaStream_t stream) {
  const dim3 grid = fp8_grid(args.result.rows, args.result.columns);
  if (format == Fp8Format::kE4M3)
    fp8_rope_heads_grad_kernel<__NV_E4M3><<<grid, kFp8Threads, 0, stream>>>(args);
  else
    fp8_rope_heads_grad_kernel<__NV_E5M2><<<grid, kFp8Threads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace fathom::cuda
