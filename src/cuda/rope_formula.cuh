// Rotation of one number, for kernels that write it in its type and for those that go on with it.
#pragma once

namespace fathom::cuda {

/// `own` · cos + `partner` · sin, where the sine has its sign already. With a fused addition of its own, so
/// that every kernel rounds alike.
__device__ inline float turned(float own, float partner, float cos, float sin) {
  return fmaf(own, cos, partner * sin);
}
__device__ inline double turned(double own, double partner, double cos, double sin) {
  return fma(own, cos, partner * sin);
}

}  // namespace fathom::cuda
