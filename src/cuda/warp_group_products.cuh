// What four warps, a warp group, multiply together on Hopper: wgmma.m64n64k16 of 16-bit elements, the left
// operand in registers, the right one in shared memory, and what orders these products with other work.
//
// Of a left operand and of a result the i-th warp holds rows 16 i to 16 i + 15 as in warp_products.cuh, a
// result's columns in eight groups of eight. A right operand is stored as columns behind one another, lines
// of 128 bytes in which a piece of 16 bytes lies at its place xor the line's number modulo 8.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace fathom::cuda {

constexpr int kGroupThreads = 128;
constexpr int kGroupRows = 64;       ///< of a left operand
constexpr int kGroupTokens = 64;     ///< columns of a right operand
constexpr int kSwizzleBytes = 1024;  ///< right operands begin at multiples: eight lines

/// What describes a right operand to the instruction: where it begins, and that groups of eight lines follow
/// one another. `address`: of the first line, or 32 bytes further for each 16 terms.
__device__ inline uint64_t swizzled_lines(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kGroupStride = uint64_t{kSwizzleBytes / 16} << 32;
  constexpr uint64_t kUnused = uint64_t{1} << 16;
  return kSwizzle128 | kGroupStride | kUnused | ((address & 0x3ffff) >> 4);
}

#define FATHOM_GROUP_MULTIPLY_ADD(TYPE)                                                                      \
  asm volatile(                                                                                              \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %37, 0;\n"                                                     \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                                            \
      " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
      "%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, adds, 1, 1, 0;\n}\n"                                    \
      : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]),            \
        "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]),            \
        "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]),            \
        "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]),            \
        "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]),            \
        "+f"(c[7][2]), "+f"(c[7][3])                                                                         \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1))

/// c += a · b with 16 terms, some time until `await_group_products`: before that neither c nor a may be
/// touched, nor what b describes. All threads of the group take part.
template <typename T>
__device__ void group_multiply_add(float (&c)[kGroupTokens / 8][4], const uint32_t (&a)[4], uint64_t b);
template <>
__device__ inline void group_multiply_add<__nv_bfloat16>(float (&c)[kGroupTokens / 8][4],
                                                         const uint32_t (&a)[4], uint64_t b) {
  FATHOM_GROUP_MULTIPLY_ADD("bf16");
}
template <>
__device__ inline void group_multiply_add<__half>(float (&c)[kGroupTokens / 8][4], const uint32_t (&a)[4],
                                                  uint64_t b) {
  FATHOM_GROUP_MULTIPLY_ADD("f16");
}
#undef FATHOM_GROUP_MULTIPLY_ADD

/// Before the first product after registers of it were written.
__device__ inline void begin_group_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void close_group_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until all are made.
__device__ inline void await_group_products() {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}
/// Keeps the compiler from reading sums before they are awaited.
__device__ inline void hold(float (&c)[kGroupTokens / 8][4]) {
#pragma unroll
  for (int i = 0; i < kGroupTokens / 8; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) asm volatile("" : "+f"(c[i][j])::"memory");
}
/// What this thread has written to shared memory, or copied there and awaited, may be read by products of
/// those that it meets at the next barrier.
__device__ inline void show_to_group_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// From shared memory.
__device__ inline uint32_t load_word(uint32_t address) {
  uint32_t x;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
  return x;
}
__device__ inline uint4 load_piece(uint32_t address) {
  uint4 x;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(address)
               : "memory");
  return x;
}

}  // namespace fathom::cuda
