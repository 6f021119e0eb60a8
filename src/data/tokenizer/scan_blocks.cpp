#include "data/tokenizer/scan_blocks.h"

#include <emmintrin.h>

#include <algorithm>
#include <bit>

#include "data/tokenizer/scan.h"

namespace fathom::scan {
namespace {

/// One bit a byte of the block.
struct ClassMasks {
  uint64_t letters = 0, numbers = 0, spaces = 0;
  uint64_t blanks = 0;  ///< ' ', also in `spaces`
  uint64_t apostrophes = 0;
  uint64_t beyond_ascii = 0;
};

uint64_t bits(__m128i mask) {
  return static_cast<uint32_t>(_mm_movemask_epi8(mask));
}

/// Bytes in [first, first + count), compared as signed bytes after a shift of the range to the lowest values.
__m128i in_range(__m128i bytes, char first, int count) {
  const __m128i shifted = _mm_add_epi8(bytes, _mm_set1_epi8(static_cast<char>(0x80 - first)));
  return _mm_cmplt_epi8(shifted, _mm_set1_epi8(static_cast<char>(-128 + count)));
}

ClassMasks classify_block(const char* p) {
  ClassMasks masks;
  for (int at = 0; at < kBlockBytes; at += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + at));
    const __m128i blank = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(' '));
    masks.letters |= bits(in_range(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), 'a', 26)) << at;
    masks.numbers |= bits(in_range(bytes, '0', 10)) << at;
    masks.spaces |= bits(_mm_or_si128(blank, in_range(bytes, '\t', 5))) << at;
    masks.blanks |= bits(blank) << at;
    masks.apostrophes |= bits(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\''))) << at;
    masks.beyond_ascii |= bits(bytes) << at;
  }
  return masks;
}

/// Starts by class alone: where the class changes, except that a blank goes with what follows it, and any
/// other space before a word stands alone.
uint64_t class_starts(const ClassMasks& masks) {
  const auto changes = [](uint64_t mask) { return mask ^ mask << 1; };
  const uint64_t changed = changes(masks.letters) | changes(masks.numbers) | changes(masks.spaces);
  const uint64_t after_space = ~masks.spaces & masks.spaces << 1;
  return ((changed | after_space >> 1) & ~(after_space & masks.blanks << 1)) | 1;
}

/// A contraction ends after its letters, and not before them.
uint64_t with_contractions(uint64_t starts, uint64_t apostrophes, const char* p) {
  for (uint64_t left = starts & apostrophes; left != 0; left &= left - 1) {
    const int at = std::countr_zero(left);
    const int length = contraction_length(p + at, p + kBlockBytes);
    if (length == 0) continue;
    starts &= ~(uint64_t{1} << at << 1);
    if (at + length < kBlockBytes) starts |= uint64_t{1} << (at + length);
  }
  return starts;
}

}  // namespace

uint64_t gpt2_block_starts(const char* p) {
  const ClassMasks masks = classify_block(p);
  const uint64_t starts = with_contractions(class_starts(masks), masks.apostrophes, p);
  // A start depends on the byte behind it, a contraction on two more.
  const int num_known = std::countr_zero(masks.beyond_ascii) - 3;
  const uint64_t known = num_known > 0 ? (uint64_t{1} << num_known) - 1 : 0;
  return (starts & known) | 1;
}

}  // namespace fathom::scan
