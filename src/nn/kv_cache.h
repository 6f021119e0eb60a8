// Keys and values of the tokens seen so far, one pair a layer.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace fathom {

/// Shapes: B sequences, K key-value heads, T tokens, E head size.
struct KeyValueCacheShape {
  int64_t layers = 0;
  int64_t batch = 1;
  int64_t kv_heads = 0;
  int64_t capacity = 0;  ///< most tokens a sequence can have
  int64_t head_dim = 0;
};

/// A contiguous cache for sequences of equal length, of whose tokens layers with gates may hold fewer. Owned
/// by whoever generates, used by one thread; a forward pass appends to every layer, then the model calls
/// `advance`.
class KeyValueCache {
 public:
  KeyValueCache(const KeyValueCacheShape& shape, const at::TensorOptions& options);

  int64_t length() const { return length_; }  ///< tokens seen by all layers
  int64_t capacity() const { return capacity_; }
  void reset();

  /// Where keys and values of the next `count` tokens are to be written, behind what is there: views [B, K,
  /// count, E]. Errors (kRequest): beyond the capacity.
  std::pair<at::Tensor, at::Tensor> next(int64_t layer, int64_t count) const;
  /// All up to those: [B, K, length + count, E].
  std::pair<at::Tensor, at::Tensor> with_next(int64_t layer, int64_t count) const;
  /// Stores [1, K, N, E] of one sequence of a layer that skips tokens behind the keys that it holds of `row`;
  /// returns views of all of those. Errors as above.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, int64_t row, const at::Tensor& key_1KNE,
                                           const at::Tensor& value_1KNE);
  /// Keys of one sequence in a layer that skips tokens. Waits for the device after `filled`.
  int64_t num_keys(int64_t layer, int64_t row);
  /// All room of a layer, [B, K, capacity, E], for whoever writes the first keys and values himself, and then
  /// says where each sequence's begin among them: int32 [B + 1], on the cache's device.
  std::pair<at::Tensor, at::Tensor> room(int64_t layer) const;
  void filled(int64_t layer, at::Tensor start_S1);
  /// How many keys each layer holds of each sequence, int32 [L, B] on the cache's device, for a kernel that
  /// appends those of one token and counts them there; the host asks when it has to know again. `skips`:
  /// which layers skip tokens.
  at::Tensor& device_counts(const std::vector<bool>& skips);
  /// int32 zeros, [2 + B·K], by which the blocks of such a kernel meet.
  at::Tensor& meeting();
  /// What a layer's gate has summed up over the tokens seen; undefined before the first.
  at::Tensor& gate_sum(int64_t layer) { return gate_sums_.at(static_cast<size_t>(layer)); }
  void advance(int64_t num_tokens) { length_ += num_tokens; }
  /// Errors (kRequest): fewer than `end` tokens have room.
  void require_room(int64_t end) const;

 private:
  std::vector<int64_t>& counts(int64_t layer);

  std::vector<at::Tensor> keys_;
  std::vector<at::Tensor> values_;
  std::vector<std::vector<int64_t>> num_keys_;  ///< by layer and sequence, of layers that skip tokens
  std::vector<at::Tensor> starts_;              ///< of `filled`, until somebody asks for the numbers
  std::vector<at::Tensor> gate_sums_;
  at::Tensor device_count_LB_;  ///< defined: what counts, rather than `num_keys_` and `starts_`
  int64_t device_length_ = 0;   ///< tokens seen when they are right, for layers that skip none
  at::Tensor meeting_;
  int64_t capacity_;
  int64_t length_ = 0;
};

}  // namespace fathom
