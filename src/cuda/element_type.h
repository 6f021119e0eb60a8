// Element types, alignment and grid sizes of our kernels, for launchers that see raw pointers only.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace fathom::cuda {

enum class ElementType { kFloat, kDouble, kHalf, kBFloat16 };

/// Of an H100: grids that loop are sized by it on every card, so that sums do not depend on the card.
constexpr int kMultiprocessors = 132;

/// Whether vectors of 16 bytes may begin at all of them.
inline bool are_aligned16(std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers)
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  return true;
}

}  // namespace fathom::cuda
