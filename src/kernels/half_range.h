// The range of FP16 and what lies beyond it, which kernels of every device share. No LibTorch here: .cu files
// read it.
#pragma once

#include "tensor/host_device.h"

namespace fathom::kernels {

constexpr float kLargestHalf = 65504;

/// NaN does not.
FATHOM_HOST_DEVICE FATHOM_INLINE bool saturates_half(float x) {
  return x > kLargestHalf || x < -kLargestHalf;
}

/// `x`, or the end of the range that it lies beyond. NaN stays.
FATHOM_HOST_DEVICE FATHOM_INLINE float within_half(float x) {
  return x > kLargestHalf ? kLargestHalf : x < -kLargestHalf ? -kLargestHalf : x;
}

}  // namespace fathom::kernels
