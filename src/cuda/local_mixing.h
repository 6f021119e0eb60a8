// What the registration of local_mixing hands to its kernels: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

constexpr int kMixingSide = 3;  ///< of the neighbourhoods that the kernels take
constexpr int kMixingPlaces = kMixingSide * kMixingSide;

/// Maps [samples, height, width, channels].
struct MapShape {
  int64_t samples = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;
};

/// `x`, `y`: maps; `weight`: float32 [channels, side, side]; `bias`: float32 [channels], or null.
struct LocalMixingArgs {
  const void* x = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;
  void* y = nullptr;
  MapShape shape;
  bool turned = false;  ///< what y gave to x instead of what x gives to y: the gradient by x from that by y
};

/// `grad`, `x`: maps; `partial`: float32 [parts, channels · (side² + 1)], sums of a part's places: of each
/// channel's weights one after another, then of all biases.
struct LocalMixingGradArgs {
  const void* grad = nullptr;
  const void* x = nullptr;
  float* partial = nullptr;
  MapShape shape;
  int64_t parts = 0;
};

/// Whether the kernels take such maps; pointers have to lie at multiples of 16 bytes.
bool local_mixing_fits(ElementType type, const MapShape& shape);
/// Parts in which gradients of weights are summed: they depend on the shape alone.
int64_t local_mixing_parts_of(const MapShape& shape);

cudaError_t launch_local_mixing(ElementType type, const LocalMixingArgs& args, cudaStream_t stream);
cudaError_t launch_local_mixing_grad(ElementType type, const LocalMixingGradArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
