// Element types of our kernels, for launchers that see raw pointers only.
#pragma once

namespace fathom::cuda {

enum class ElementType { kFloat, kDouble, kHalf, kBFloat16 };

}  // namespace fathom::cuda
