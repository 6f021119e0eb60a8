// What a warp multiplies matrices with: products of 16-bit elements on tensor cores, transposition between
// lanes, sums over the lanes that share a row, and copies to shared memory that it need not wait for.
//
// The products are mma.m16n8k16 and m16n8k8: lane 4g + t holds, of a left operand and of a result, rows g and
// g + 8 and the pair of columns 2t, 2t + 1 of each eight; of a right operand, column g and the pair of rows.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace fathom::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

/// c += a · b with 16 terms.
template <typename T>
__device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply_add<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// c += a · b with 8 terms; `low`, `high`: rows g and g + 8 of a.
template <typename T>
__device__ void multiply_add8(float (&c)[4], uint32_t low, uint32_t high, uint32_t b);
template <>
__device__ inline void multiply_add8<__nv_bfloat16>(float (&c)[4], uint32_t low, uint32_t high, uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(low), "r"(high), "r"(b));
}
template <>
__device__ inline void multiply_add8<__half>(float (&c)[4], uint32_t low, uint32_t high, uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(low), "r"(high), "r"(b));
}

/// Two elements in one register, the first in the low half.
template <typename T>
__device__ uint32_t pack(float low, float high);
template <>
__device__ inline uint32_t pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <>
__device__ inline uint32_t pack<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// A thread's eight sums of 16 columns as tensor cores lay them out: pairs, rows 8 apart, columns 8 apart.
template <typename T>
__device__ uint4 packed(const float* sums) {
  return make_uint4(pack<T>(sums[0], sums[1]), pack<T>(sums[2], sums[3]), pack<T>(sums[4], sums[5]),
                    pack<T>(sums[6], sums[7]));
}

/// Transposes a matrix of 8 × 8 elements that the warp holds, a pair of a row's columns a lane.
__device__ inline uint32_t transposed(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Four such matrices from shared memory; lane 8i + r knows where row r of the i-th lies (16 bytes).
__device__ inline uint4 load_matrices(uint32_t row) {
  uint4 x;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(row)
               : "memory");
  return x;
}
__device__ inline uint4 load_transposed_matrices(uint32_t row) {
  uint4 x;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(row)
               : "memory");
  return x;
}

/// Writes four of them, likewise.
__device__ inline void store_matrices(uint32_t row, uint4 x) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row), "r"(x.x), "r"(x.y),
               "r"(x.z), "r"(x.w)
               : "memory");
}

__device__ inline float sum_of_four(float x) {  // over the lanes that share a row
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}
__device__ inline float max_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

/// 2 to the power of x; what a float would hold with fewer digits is 0.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Asks for 16 bytes, past the first cache; zeros where they are not `real`, and nothing is read. What lies
/// beside them comes to the second-level cache as well, a line of 128 bytes.
__device__ inline void copy_piece(uint32_t to, const void* from, bool real) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(real ? 16 : 0)
               : "memory");
}
/// The same without what lies beside them: rows of a window's head are half a line.
__device__ inline void copy_piece_alone(uint32_t to, const void* from, bool real) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(real ? 16 : 0)
               : "memory");
}
/// What was asked for since the last call is one group.
__device__ inline void close_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Until all groups but the last `kGroups` are there.
template <int kGroups>
__device__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}
/// Until all that this thread has asked for is there.
__device__ inline void await_all_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/// The sector of 32 bytes at this address is read into the second-level cache.
__device__ inline void read_ahead(const void* source) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(source));
}

/// Both elements of a register times those of another.
template <typename T>
__device__ uint32_t multiplied_pair(uint32_t x, uint32_t y);
template <>
__device__ inline uint32_t multiplied_pair<__nv_bfloat16>(uint32_t x, uint32_t y) {
  const __nv_bfloat162 product =
      __hmul2(reinterpret_cast<const __nv_bfloat162&>(x), reinterpret_cast<const __nv_bfloat162&>(y));
  return reinterpret_cast<const uint32_t&>(product);
}
template <>
__device__ inline uint32_t multiplied_pair<__half>(uint32_t x, uint32_t y) {
  const __half2 product = __hmul2(reinterpret_cast<const __half2&>(x), reinterpret_cast<const __half2&>(y));
  return reinterpret_cast<const uint32_t&>(product);
}

template <typename T>
__device__ float2 widened_pair(uint32_t x);
template <>
__device__ inline float2 widened_pair<__nv_bfloat16>(uint32_t x) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(x));
}
template <>
__device__ inline float2 widened_pair<__half>(uint32_t x) {
  return __half22float2(reinterpret_cast<const __half2&>(x));
}

}  // namespace fathom::cuda
