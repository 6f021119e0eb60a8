// Eight frames a vector.
#include "data/audio/log_mel_kernels.h"

#define FATHOM_MEL_TARGET __attribute__((target("avx2,fma")))
#define FATHOM_MEL_LANES 8
#include "data/audio/log_mel_block.inc"

namespace fathom {
const MelKernels kAvx2Mel = {kLanes, block, finish};
}  // namespace fathom
