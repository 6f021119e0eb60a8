// Operations in FP8.
#pragma once

#include <vector>

#include "kernels/kernel.h"

namespace fathom::bench {

/// What this device multiplies in FP8, and what writes its operands; nothing where it does not, or where
/// numbers are not BF16.
std::vector<Kernel> fp8_kernels(const Operands& make);

}  // namespace fathom::bench
