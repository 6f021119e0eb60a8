// What the registration of shifted window attention hands to its kernels: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// Where windows lie that a gate chose: `count` rows of places, one window behind the other, each at `place`
/// of a batch of maps of `height` × `width`.
struct WindowPlaces {
  const int32_t* place = nullptr;
  const int32_t* count = nullptr;
  int height = 0;
  int width = 0;
};

/// `qkv`: [images, height, width, 3, heads, 32]; `bias`: float32 [heads, T, T], T = side²; `out`: [images,
/// height, width, heads, 32]. Windows divide the map. With `chosen` windows each
/// is an image of its own, of the size of a window, with the seams of where it lies.
struct ShiftedWindowArgs {
  const void* qkv;
  const float* bias;
  void* out;
  int64_t images;
  int height;
  int width;
  int heads;
  int side;
  int shift;
  float scale;
  WindowPlaces chosen = {};
};

/// `grad`: like the forward pass's `out`; `grad_qkv` like qkv; `partial`: float32 [blocks, heads, T, T].
struct ShiftedWindowBackwardArgs {
  ShiftedWindowArgs forward;  ///< its `out` is not read
  const void* grad;
  void* grad_qkv;
  float* partial;
  int64_t blocks;
};

constexpr int kShiftedWindowHeadSize = 32;
constexpr int kShiftedWindowMaxPlaces = 64;

/// Shared memory that a block takes, in the forward pass (up to 65 KB) and in the backward pass (up to 225
/// KB); of `args` only side and shift are read. A side without a kernel takes more than any card has.
int64_t shifted_window_shared_bytes(const ShiftedWindowArgs& args);
int64_t shifted_window_backward_shared_bytes(const ShiftedWindowArgs& args);
/// Blocks a head in the backward pass: the same for the same sizes, so that sums do not change between runs.
int64_t shifted_window_blocks(const ShiftedWindowArgs& args);
/// `type`: half or bfloat16.
cudaError_t launch_shifted_window_attention(ElementType type, const ShiftedWindowArgs& args,
                                            cudaStream_t stream);
cudaError_t launch_shifted_window_attention_backward(ElementType type, const ShiftedWindowBackwardArgs& args,
                                                     cudaStream_t stream);

}  // namespace fathom::cuda
