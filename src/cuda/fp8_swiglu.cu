// SwiGLU whose result is a product's operand, and its gradient, which is one too: written in FP8 at once.
#include "cuda/awaited.cuh"
#include "cuda/fp8_tile.cuh"
#include "cuda/fp8_tiles.h"
#include "cuda/swiglu_formula.cuh"

namespace fathom::cuda {
namespace {

using Gate = __nv_bfloat16;

__global__ void __launch_bounds__(kFp8Threads, 3) fp8_swiglu_kernel(Awaited<Fp8SwigluArgs> awaited) {
  const Fp8SwigluArgs& args = awaited.get();
  __shared__ alignas(16) uint32_t tile[kFp8Side * kFp8Words];
  const Fp8Place place = fp8_place();
  Fp8Held<Gate> held = {};
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) {
    if (!place.is_inside(i, args.result.rows, args.inner)) continue;
    const int64_t row = place.row + place.tile_row(i), column = place.own_column();
    held.rows[i] = gated_values(fp8_vector<Gate>(args.gate_up, row, 2 * args.inner, column),
                                fp8_vector<Gate>(args.gate_up, row, 2 * args.inner, args.inner + column));
  }
  write_fp8_tile<__NV_E4M3>(held, place, args.result, tile);
}

/// A block has the gates' tile and, `inner` columns behind it, that of the values that they let through.
template <__nv_fp8_interpretation_t kFormat>
__global__ void __launch_bounds__(kFp8Threads, 2) fp8_swiglu_grad_kernel(Awaited<Fp8SwigluArgs> awaited) {
  const Fp8SwigluArgs& args = awaited.get();
  __shared__ alignas(16) uint32_t tile[kFp8Side * kFp8Words];
  Fp8Place place = fp8_place();
  Fp8Held<Gate> gates = {}, ups = {};
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) {
    if (!place.is_inside(i, args.result.rows, args.inner)) continue;
    const int64_t row = place.row + place.tile_row(i), column = place.own_column();
    const auto grad =
        gated_gradients(fp8_vector<Gate>(args.gate_up, row, 2 * args.inner, column),
                        fp8_vector<Gate>(args.gate_up, row, 2 * args.inner, args.inner + column),
                        fp8_vector<Gate>(args.grad, row, args.inner, column));
    gates.rows[i] = grad.gate;
    ups.rows[i] = grad.up;
  }
  write_fp8_tile<kFormat>(gates, place, args.result, tile);
  __syncthreads();
  place.column += args.inner;
  write_fp8_tile<kFormat>(ups, place, args.result, tile);
}

}  // namespace

cudaError_t launch_fp8_swiglu(const Fp8SwigluArgs& args, cudaStream_t stream) {
  launch_awaiting(fp8_swiglu_kernel, fp8_grid(args.result.rows, args.inner), kFp8Threads, 0, stream, args);
  return cudaGetLastError();
}

cudaError_t launch_fp8_swiglu_grad(Fp8Format format, const Fp8SwigluArgs& args, cudaStream_t stream) {
  const dim3 grid = fp8_grid(args.result.rows, args.inner);
  if (format == Fp8Format::kE4M3)
    launch_awaiting(fp8_swiglu_grad_kernel<__NV_E4M3>, grid, kFp8Threads, 0, stream, args);
  else
    launch_awaiting(fp8_swiglu_grad_kernel<__NV_E5M2>, grid, kFp8Threads, 0, stream, args);
  return cudaGetLastError();
}

}  // namespace fathom::cuda
