// Casts to FP16 that saturate and are counted, for kernels that write operands of products.
#pragma once

#include "cuda/vectors.cuh"
#include "kernels/half_range.h"

namespace fathom::cuda {

/// A thread's.
class HalfCast {
 public:
  __device__ __half operator()(float x) {
    saturated_ += kernels::saturates_half(x) ? 1 : 0;
    return __float2half_rn(kernels::within_half(x));
  }
  /// Adds what saturated to `total`, unless that is null. So few do in training that runs well that threads
  /// need not gather first.
  __device__ void count(int64_t* total) const {
    if (saturated_ > 0 && total != nullptr)
      atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(saturated_));
  }

 private:
  int saturated_ = 0;
};

/// Rounds numbers to type `Out` as kernels of states in type T write them: operands in FP16 beside other
/// states saturate, all else does not.
template <typename Out, typename T>
__device__ Out written(Computed<T> x, HalfCast& cast) {
  if constexpr (std::is_same_v<Out, T>)
    return narrowed<T>(x);
  else
    return cast(x);
}

}  // namespace fathom::cuda
