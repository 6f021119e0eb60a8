#include "tensor/random_keys.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/bitwise_xor.h>
#include <ATen/ops/mul.h>
#include <c10/util/accumulate.h>

#include "base/error.h"
#include "base/random.h"

namespace fathom {
namespace {

// Words live in int64 elements, always in [0, 2³²): products wrap, and what is kept of them is their low
// half.
constexpr int64_t kWord = 0xffffffff;

at::Tensor xor_shift(const at::Tensor& x, int64_t bits) {
  return at::bitwise_xor(x, at::bitwise_right_shift(x, bits));
}

at::Tensor mix32(const at::Tensor& x) {
  const auto once = at::bitwise_and(at::mul(xor_shift(x, 16), int64_t{0x21f0aaad}), kWord);
  return xor_shift(at::bitwise_and(at::mul(xor_shift(once, 15), int64_t{0xd35a2d97}), kWord), 15);
}

at::Tensor add_word(const at::Tensor& x, const at::Tensor& y) {
  return at::bitwise_and(at::add(x, y), kWord);
}

at::Tensor low_word(const at::Tensor& x) {
  return at::bitwise_and(x, kWord);
}

at::Tensor high_word(const at::Tensor& x) {
  return low_word(at::bitwise_right_shift(x, 32));
}

}  // namespace

at::Tensor keyed_bits(const at::Tensor& key_B, at::IntArrayRef per_sample_shape, int64_t stream) {
  FATHOM_CHECK(key_B.dim() == 1 && key_B.scalar_type() == at::kLong,
               "[keyed_bits] expected int64 keys [B], got {} of {} dimensions",
               c10::toString(key_B.scalar_type()), key_B.dim());
  const int64_t count = c10::multiply_integers(per_sample_shape);
  FATHOM_CHECK(count <= kWord, "[keyed_bits] {} elements a sample are too many", count);

  const auto stream_low = fathom::mix32(static_cast<uint32_t>(stream) + 0x9e3779b9U);
  const auto stream_high =
      fathom::mix32(static_cast<uint32_t>(static_cast<uint64_t>(stream) >> 32) ^ stream_low);
  const auto key_B1 = key_B.unsqueeze(1);
  const auto low = low_word(key_B1), high = high_word(key_B1);
  const auto first = mix32(add_word(mix32(at::bitwise_xor(low, static_cast<int64_t>(stream_low))), high));
  const auto second = mix32(add_word(mix32(at::bitwise_xor(high, static_cast<int64_t>(stream_high))), low));

  const auto position = at::arange(count, key_B.options()).unsqueeze(0);
  std::vector<int64_t> shape = {key_B.size(0)};
  shape.insert(shape.end(), per_sample_shape.begin(), per_sample_shape.end());
  return mix32(add_word(mix32(at::bitwise_xor(position, first)), second)).view(shape);
}

at::Tensor keyed_uniform(const at::Tensor& key_B, at::IntArrayRef per_sample_shape, int64_t stream) {
  return at::bitwise_right_shift(keyed_bits(key_B, per_sample_shape, stream), 8).to(at::kFloat).mul_(0x1p-24);
}

at::Tensor token_keys(const at::Tensor& key_B, int64_t tokens) {
  return at::bitwise_xor(keyed_bits(key_B, {tokens}, kTokenStream),
                         at::mul(keyed_bits(key_B, {tokens}, kTokenStream + 1), int64_t{1} << 32));
}

at::Tensor make_sample_keys(const at::Tensor& index_B, int64_t seed, int64_t step) {
  const uint64_t key = mix_seed({static_cast<uint64_t>(seed), static_cast<uint64_t>(step)});
  const auto bits = [&](int64_t stream) {
    return keyed_bits(index_B, {}, static_cast<int64_t>(key) ^ stream);
  };
  return at::bitwise_xor(bits(0), at::mul(bits(1), int64_t{1} << 32));
}

at::Tensor keys_of_rows(const at::Tensor& key_B, int64_t each) {
  return at::add(key_B.unsqueeze(1), at::arange(each, key_B.options())).flatten();
}

}  // namespace fathom
