// Matrices on their way to Hopper's tensor cores: lines of 128 bytes, as TMA writes them to shared memory and
// wgmma reads them there, and what both are told of them.
#pragma once

#include <cuda.h>
#include <cutlass/arch/barrier.h>
#include <cutlass/cuda_host_adapter.hpp>

#include <cute/arch/copy_sm90_desc.hpp>
#include <cute/arch/copy_sm90_tma.hpp>
#include <cute/arch/mma_sm90_desc.hpp>
#include <cute/arch/mma_sm90_gmma.hpp>
#include <utility>

#include "cuda/element_type.h"
#include "cuda/vectors.cuh"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {

constexpr int kLineBytes = 128;
constexpr int kLineElements = 64;    ///< of 16 bits
constexpr int kTerms = 16;           ///< of one instruction's reduction
constexpr int kSwizzleBytes = 1024;  ///< where lines begin anew to lie in other banks

using Full = cutlass::arch::ClusterTransactionBarrier;
using Empty = cutlass::arch::ClusterBarrier;

/// Where a piece of 16 bytes of a line lies: eight lines' equal pieces lie in all banks.
__device__ inline uint32_t place_of(int line, int piece) {
  return static_cast<uint32_t>(line * kLineBytes + ((piece ^ (line & 7)) << 4));
}

/// The room of a block in dynamic shared memory, where lines may begin.
template <typename Room>
__device__ Room& room_in(unsigned char* memory) {
  const uint32_t behind = shared_address(memory) % kSwizzleBytes;
  return *reinterpret_cast<Room*>(memory + (kSwizzleBytes - behind) % kSwizzleBytes);
}

/// What wgmma is told of an operand whose lines begin at `lines`, which may be a piece's place within the
/// first where terms of the reduction lie along lines. Where they lie across, one to a line, `next_columns`
/// is the way to the next 64 columns. An address also says which block of its cluster it is in: these bits
/// are left out.
class Operand {
 public:
  __device__ explicit Operand(uint32_t lines, int next_columns = kTerms)
      : low_((lines >> 4 & 0x3fff) | (static_cast<uint32_t>(next_columns) >> 4 << 16)) {}

  /// `bytes` further on: added to one word, which all threads of a warp hold alike.
  __device__ uint64_t at(int bytes) const {
    constexpr uint32_t kHigh =
        kSwizzleBytes >> 4 | 1u << 30;  // to the next 8 lines; pieces as `place_of` says
    return uint64_t{kHigh} << 32 | (low_ + (static_cast<uint32_t>(bytes) >> 4));
  }

 private:
  uint32_t low_;
};

namespace wgmma {

using cute::SM90::GMMA::Major;
namespace gmma = cute::SM90::GMMA;

/// c += a · b of 64 rows and kColumns columns with 16 terms; both lie in shared memory, terms of a along
/// lines. `kAlong`: terms of b lie along lines, or across them.
template <typename T, int kColumns, Major kAlong>
struct Lined;
/// The same where a lies in registers.
template <typename T, int kColumns, Major kAlong>
struct Held;

#define FATHOM_WGMMA(element, name, columns)                                         \
  template <Major kAlong>                                                            \
  struct Lined<element, columns, kAlong> {                                           \
    using Type = gmma::MMA_64x##columns##x16_F32##name##name##_SS<Major::K, kAlong>; \
  };                                                                                 \
  template <Major kAlong>                                                            \
  struct Held<element, columns, kAlong> {                                            \
    using Type = gmma::MMA_64x##columns##x16_F32##name##name##_RS<Major::K, kAlong>; \
  };
FATHOM_WGMMA(__half, F16, 64)
FATHOM_WGMMA(__half, F16, 128)
FATHOM_WGMMA(__half, F16, 192)
FATHOM_WGMMA(__half, F16, 208)
FATHOM_WGMMA(__half, F16, 224)
FATHOM_WGMMA(__half, F16, 256)
FATHOM_WGMMA(__nv_bfloat16, BF16, 64)
FATHOM_WGMMA(__nv_bfloat16, BF16, 128)
FATHOM_WGMMA(__nv_bfloat16, BF16, 192)
FATHOM_WGMMA(__nv_bfloat16, BF16, 208)
FATHOM_WGMMA(__nv_bfloat16, BF16, 224)
FATHOM_WGMMA(__nv_bfloat16, BF16, 256)
#undef FATHOM_WGMMA

template <typename Type, size_t... kIndex>
__device__ void multiply(float (&sum)[sizeof...(kIndex)], uint64_t a, uint64_t b, bool adds,
                         std::index_sequence<kIndex...> /*all*/) {
  Type::fma(a, b, sum[kIndex]..., adds ? gmma::ScaleOut::One : gmma::ScaleOut::Zero);
}
template <typename Type, size_t... kIndex>
__device__ void multiply(float (&sum)[sizeof...(kIndex)], const uint32_t (&a)[4], uint64_t b,
                         std::index_sequence<kIndex...> /*all*/) {
  Type::fma(a[0], a[1], a[2], a[3], b, sum[kIndex]..., gmma::ScaleOut::One);
}

/// sum [64, 2 · kSums] += a · b, or = where it does not add; they are there after `finish`.
template <typename T, Major kAlong = Major::K, int kSums>
__device__ void multiply_lines(float (&sum)[kSums], uint64_t a, uint64_t b, bool adds) {
  multiply<typename Lined<T, 2 * kSums, kAlong>::Type>(sum, a, b, adds, std::make_index_sequence<kSums>());
}
template <typename T, Major kAlong, int kSums>
__device__ void multiply_held(float (&sum)[kSums], const uint32_t (&a)[4], uint64_t b) {
  multiply<typename Held<T, 2 * kSums, kAlong>::Type>(sum, a, b, std::make_index_sequence<kSums>());
}

/// The compiler moves nothing that touches these past here.
template <int kSums>
__device__ void hold(float (&sum)[kSums]) {
#pragma unroll
  for (float& x : sum) cute::warpgroup_fence_operand(x);
}

/// Before the first product of some and after the last; between them nobody touches the sums.
template <int kSums>
__device__ void begin(float (&sum)[kSums]) {
  hold(sum);
  cute::warpgroup_arrive();
}
template <int kSums>
__device__ void finish(float (&sum)[kSums]) {
  cute::warpgroup_wait<0>();
  hold(sum);
}

}  // namespace wgmma

/// Of a dense matrix of 16-bit elements, or several, whose lines a box takes 128 bytes of.
struct Lines {
  ElementType type = ElementType::kHalf;
  const void* begin = nullptr;
  int64_t elements = 0;  ///< of a line
  int64_t stride = 0;    ///< elements from one line to the next
  int64_t lines = 0;     ///< of a matrix
  int64_t matrices = 0;  ///< 0: one, of which a box has two coordinates
  int box_lines = 0;
  int box_elements = kLineElements;  ///< fewer lie in shared memory one line behind the other, in order
};

/// Lines that are not there are zeros.
inline cudaError_t describe(const Lines& of, CUtensorMap& map) {
  // The driver wants the device's context to be this thread's, which it is when the runtime has been asked
  // for it.
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  if (const cudaError_t error = cudaSetDevice(device)) return error;
  const CUtensorMapDataType type =
      of.type == ElementType::kHalf ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const auto elements = static_cast<cuuint64_t>(of.elements), lines = static_cast<cuuint64_t>(of.lines);
  const cuuint64_t sizes[] = {elements, lines, static_cast<cuuint64_t>(of.matrices)};
  const cuuint64_t line_bytes = 2 * static_cast<cuuint64_t>(of.stride),
                   strides[] = {line_bytes, line_bytes * lines};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(of.box_elements), static_cast<cuuint32_t>(of.box_lines),
                            1},
                   each[] = {1, 1, 1};
  const CUresult found = CUTLASS_CUDA_DRIVER_WRAPPER_CALL(cuTensorMapEncodeTiled)(
      &map, type, of.matrices > 0 ? 3 : 2, const_cast<void*>(of.begin), sizes, strides, box, each,
      CU_TENSOR_MAP_INTERLEAVE_NONE,
      of.box_elements < kLineElements ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return found == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
