// What the registration of fp8_gemm hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/fp8_schedule.h"
#include "cuda/fp8_tiles.h"

namespace fathom::cuda {

/// out [m, n] = a bᵀ (+ bias), of a [m, k] and b [n, k], dense, both with a scale for each tile of 128 × 128.
/// All begin at multiples of 16 bytes, and all sizes are multiples of 16.
struct Fp8GemmArgs {
  const void* a;
  const float* a_scales;  ///< [⌈k/128⌉, m], each row with its tile's
  Fp8Format a_format;
  const void* b;          ///< E4M3
  const float* b_scales;  ///< [⌈n/128⌉, ⌈k/128⌉ rounded up to a multiple of 4]
  const void* bias;       ///< null, or bfloat16 [n]
  void* out;
  bool is_narrow;  ///< `out` is bfloat16, and float32 otherwise
  int m, n, k;
};

/// Of a block's sums: rows and columns of its tile.
constexpr int kFp8GemmRows = 256, kFp8GemmColumns = 128;

/// What runs, and the memory that it takes.
struct Fp8GemmPlan {
  Fp8Plan work;
  int pair;  ///< blocks of a cluster: 2, which share what they load of a, or 1

  int64_t handed_over() const { return int64_t{work.slots()} * pair; }
  /// float32, and zeros of 32 bits.
  int64_t num_sums() const { return handed_over() * kFp8GemmRows * kFp8GemmColumns; }
  int64_t num_flags() const { return handed_over() * 2; }
};

/// `pair`: 1, 2, or 0 for the better one.
Fp8GemmPlan plan_fp8_gemm(const Fp8GemmArgs& args, int multiprocessors, int pair);
/// On Hopper alone.
cudaError_t launch_fp8_gemm(const Fp8GemmArgs& args, const Fp8GemmPlan& plan, float* sums, uint32_t* flags,
                            cudaStream_t stream);

}  // namespace fathom::cuda
