// Where the pieces of plain ASCII text begin, 64 bytes at a time and without a branch per word.
#pragma once

#include <cstdint>

namespace fathom::scan {

/// Bytes that `gpt2_block_starts` reads.
inline constexpr int kBlockBytes = 64;

/// Bit i: a piece of GPT-2's splitter starts at p + i. Bit 0 is always set. Bits are left out, from the
/// right, where they would depend on bytes outside ASCII or behind the block; what follows the last bit is
/// for the next block. REQUIRES: a piece starts at p; kBlockBytes are readable. Source of the idea: Langdale
/// and Lemire, "Parsing gigabytes of JSON per second", VLDB Journal 2019.
uint64_t gpt2_block_starts(const char* p);

}  // namespace fathom::scan
