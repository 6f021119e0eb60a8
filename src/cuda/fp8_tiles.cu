// Matrices in FP8 with a scale for each tile: memory-bound, a block a tile.
#include "cuda/awaited.cuh"
#include "cuda/fp8_tile.cuh"
#include "cuda/fp8_tiles.h"

namespace fathom::cuda {
namespace {

/// On a multiprocessor: while one finds its largest number, others read and write. What fits into registers.
template <typename T>
constexpr int kFp8BlocksAtOnce = sizeof(T) == 2 ? 3 : 2;

template <typename T, __nv_fp8_interpretation_t kFormat>
__global__ void __launch_bounds__(kFp8Threads, kFp8BlocksAtOnce<T>)
    fp8_tiles_kernel(Awaited<Fp8TilesArgs> awaited) {
  const Fp8TilesArgs& args = awaited.get();
  __shared__ alignas(16) uint32_t tile[kFp8Side * kFp8Words];
  const Fp8Place place = fp8_place();
  Fp8Held<T> held = {};
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i)
    if (place.is_inside(i, args.result.rows, args.result.columns))
      held.rows[i] =
          fp8_vector<T>(args.x, place.row + place.tile_row(i), args.result.columns, place.own_column());
  write_fp8_tile<kFormat>(held, place, args.result, tile);
}

template <typename T>
cudaError_t launch(Fp8Format format, const Fp8TilesArgs& args, cudaStream_t stream) {
  const dim3 grid = fp8_grid(args.result.rows, args.result.columns);
  if (format == Fp8Format::kE4M3)
    launch_awaiting(fp8_tiles_kernel<T, __NV_E4M3>, grid, kFp8Threads, 0, stream, args);
  else
    launch_awaiting(fp8_tiles_kernel<T, __NV_E5M2>, grid, kFp8Threads, 0, stream, args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_fp8_tiles(ElementType type, Fp8Format format, const Fp8TilesArgs& args,
                             cudaStream_t stream) {
  switch (type) {
    case ElementType::kFloat:
      return launch<float>(format, args, stream);
    case ElementType::kBFloat16:
      return launch<__nv_bfloat16>(format, args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace fathom::cuda
