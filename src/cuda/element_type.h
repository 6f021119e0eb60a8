// Element types and grid sizes of our kernels, for launchers that see raw pointers only.
#pragma once

namespace fathom::cuda {

enum class ElementType { kFloat, kDouble, kHalf, kBFloat16 };

/// Of an H100: grids that loop are sized by it on every card, so that sums do not depend on the card.
constexpr int kMultiprocessors = 132;

}  // namespace fathom::cuda
