#include "nn/kv_cache.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace fathom {

KeyValueCache::KeyValueCache(const KeyValueCacheShape& shape, const at::TensorOptions& options)
    : capacity_(shape.capacity) {
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    keys_.push_back(at::empty({shape.batch, shape.kv_heads, shape.capacity, shape.head_dim}, options));
    values_.push_back(at::empty_like(keys_.back()));
  }
}

void KeyValueCache::truncate(int64_t length) {
  FATHOM_CHECK(length >= 0 && length <= length_, "[kv_cache] cannot cut {} tokens to {}", length_, length);
  length_ = length;
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::append(int64_t layer, const at::Tensor& key_BKTE,
                                                        const at::Tensor& value_BKTE) {
  const int64_t count = key_BKTE.size(2), end = length_ + count;
  if (end > capacity_)
    fail(ErrorKind::kRequest, "the key-value cache holds {} tokens, the sequence has {}", capacity_, end);
  auto& key = keys_.at(static_cast<size_t>(layer));
  auto& value = values_.at(static_cast<size_t>(layer));
  key.narrow(2, length_, count).copy_(key_BKTE);
  value.narrow(2, length_, count).copy_(value_BKTE);
  return {key.narrow(2, 0, end), value.narrow(2, 0, end)};
}

}  // namespace fathom
