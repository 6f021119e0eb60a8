// Sixteen frames a vector.
#include "data/audio/log_mel_kernels.h"

#define FATHOM_MEL_TARGET __attribute__((target("avx512f,avx512dq,avx2,fma")))
#define FATHOM_MEL_LANES 16
#include "data/audio/log_mel_block.inc"

namespace fathom {
const MelKernels kAvx512Mel = {kLanes, block, finish};
}  // namespace fathom
