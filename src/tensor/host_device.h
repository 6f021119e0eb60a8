// Marks of functions that kernels of several devices share. Defines FATHOM_HOST_DEVICE, FATHOM_INLINE.
#pragma once

#ifdef __CUDACC__
#define FATHOM_HOST_DEVICE __host__ __device__
#else
#define FATHOM_HOST_DEVICE
#endif

/// What a loop calls must be inlined into it to become vector instructions.
#define FATHOM_INLINE inline __attribute__((always_inline))
