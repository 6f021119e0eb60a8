// Counter-based random numbers: every draw is a pure function of (seed, stream…), so results do not depend on
// threads, ranks or the order of calls. Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

namespace fathom {

/// Four 32-bit words for one 128-bit counter under a 64-bit key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, uint64_t key);

/// Mixes values into one 64-bit key (order matters): `mix_seed({seed, epoch, index})`.
uint64_t mix_seed(std::initializer_list<uint64_t> values);

/// A stream of draws under one key. Copyable value; not shared between threads.
class Random {
 public:
  explicit Random(uint64_t key, uint64_t stream = 0) : key_(key), stream_(stream) {}
  explicit Random(std::initializer_list<uint64_t> values) : Random(mix_seed(values)) {}

  uint32_t next_u32();
  uint64_t next_u64();
  double uniform();                         ///< in [0, 1), 53 bits
  double uniform(double low, double high);  ///< in [low, high)
  int64_t below(int64_t bound);             ///< unbiased, in [0, bound); REQUIRES bound > 0
  double normal();                          ///< mean 0, variance 1 (Box–Muller)
  bool chance(double probability) { return uniform() < probability; }

  /// Fisher–Yates over a random-access container.
  template <typename Container>
  void shuffle(Container& items) {
    for (int64_t i = static_cast<int64_t>(items.size()) - 1; i > 0; --i) {
      using std::swap;
      swap(items[i], items[below(i + 1)]);
    }
  }

 private:
  uint64_t key_;
  uint64_t stream_;
  uint64_t counter_ = 0;
  std::array<uint32_t, 4> buffer_{};
  int available_ = 0;
};

}  // namespace fathom
