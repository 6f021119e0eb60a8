#include "nn/kv_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace fathom {

KeyValueCache::KeyValueCache(const KeyValueCacheShape& shape, const at::TensorOptions& options)
    : capacity_(shape.capacity) {
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    keys_.push_back(at::empty({shape.batch, shape.kv_heads, shape.capacity, shape.head_dim}, options));
    values_.push_back(at::empty_like(keys_.back()));
    num_keys_.emplace_back(shape.batch, 0);
  }
  gate_sums_.resize(static_cast<size_t>(shape.layers));
  starts_.resize(static_cast<size_t>(shape.layers));
}

void KeyValueCache::reset() {
  length_ = 0;
  for (auto& counts : num_keys_) counts.assign(counts.size(), 0);
  for (at::Tensor& sum : gate_sums_) sum.reset();
  for (at::Tensor& start : starts_) start.reset();
  device_count_LB_.reset();
}

at::Tensor& KeyValueCache::device_counts(const std::vector<bool>& skips) {
  const bool is_right = device_count_LB_.defined() && device_length_ == length_;
  device_length_ = length_ + 1;
  if (is_right) return device_count_LB_;
  if (device_count_LB_.defined()) counts(0);  // tokens went through the layers one by one meanwhile
  const at::TensorOptions options = keys_.front().options().dtype(at::kInt);
  const int64_t batch = keys_.front().size(0);
  std::vector<at::Tensor> count_B;
  for (size_t layer = 0; layer < keys_.size(); ++layer) {
    if (!skips.at(layer))
      count_B.push_back(at::full({batch}, length_, options));
    else if (starts_[layer].defined())
      count_B.push_back(starts_[layer].diff().to(at::kInt));
    else
      count_B.push_back(at::tensor(num_keys_[layer], at::kInt).to(options.device()));
  }
  device_count_LB_ = at::stack(count_B);
  return device_count_LB_;
}

at::Tensor& KeyValueCache::meeting() {
  if (!meeting_.defined()) {
    const at::Tensor& key_BKSE = keys_.front();
    meeting_ = at::zeros({2 + key_BKSE.size(0) * key_BKSE.size(1)}, key_BKSE.options().dtype(at::kInt));
  }
  return meeting_;
}

std::vector<int64_t>& KeyValueCache::counts(int64_t layer) {
  if (device_count_LB_.defined()) {
    const at::Tensor count_LB = device_count_LB_.to(at::kCPU, at::kLong);
    for (size_t i = 0; i < num_keys_.size(); ++i)
      std::copy_n(count_LB[static_cast<int64_t>(i)].const_data_ptr<int64_t>(), num_keys_[i].size(),
                  num_keys_[i].begin());
    for (at::Tensor& start : starts_) start.reset();
    device_count_LB_.reset();
  }
  auto& counts = num_keys_.at(static_cast<size_t>(layer));
  at::Tensor& start_S1 = starts_.at(static_cast<size_t>(layer));
  if (start_S1.defined()) {
    const at::Tensor count_S = start_S1.cpu().diff().to(at::kLong);
    std::copy_n(count_S.const_data_ptr<int64_t>(), counts.size(), counts.begin());
    start_S1.reset();
  }
  return counts;
}

int64_t KeyValueCache::num_keys(int64_t layer, int64_t row) {
  return counts(layer).at(static_cast<size_t>(row));
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::room(int64_t layer) const {
  return {keys_.at(static_cast<size_t>(layer)), values_.at(static_cast<size_t>(layer))};
}

void KeyValueCache::filled(int64_t layer, at::Tensor start_S1) {
  starts_.at(static_cast<size_t>(layer)) = std::move(start_S1);
}

void KeyValueCache::require_room(int64_t end) const {
  if (end > capacity_)
    fail(ErrorKind::kRequest, "the key-value cache holds {} tokens, the sequence has {}", capacity_, end);
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::next(int64_t layer, int64_t count) const {
  require_room(length_ + count);
  const auto [keys, values] = room(layer);
  return {keys.narrow(2, length_, count), values.narrow(2, length_, count)};
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::with_next(int64_t layer, int64_t count) const {
  const auto [keys, values] = room(layer);
  return {keys.narrow(2, 0, length_ + count), values.narrow(2, 0, length_ + count)};
}

std::pair<at::Tensor, at::Tensor> KeyValueCache::append(int64_t layer, int64_t row,
                                                        const at::Tensor& key_1KNE,
                                                        const at::Tensor& value_1KNE) {
  int64_t& held = counts(layer).at(static_cast<size_t>(row));
  const int64_t count = key_1KNE.size(2), end = held + count;
  require_room(end);
  const auto key = keys_.at(static_cast<size_t>(layer)).narrow(0, row, 1);
  const auto value = values_.at(static_cast<size_t>(layer)).narrow(0, row, 1);
  key.narrow(2, held, count).copy_(key_1KNE);
  value.narrow(2, held, count).copy_(value_1KNE);
  held = end;
  return {key.narrow(2, 0, end), value.narrow(2, 0, end)};
}

}  // namespace fathom
