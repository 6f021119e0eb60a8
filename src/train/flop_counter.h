// Counts the floating-point operations of the products that are really executed.
#pragma once

#include <cstdint>

namespace fathom {

/// While it lives: 2 a multiply-add of every matrix product and attention that this thread calls, causal
/// attention by half. It sees calls, so work in a replayed graph does not count. One a thread at a time.
class FlopCounter {
 public:
  FlopCounter();
  ~FlopCounter();
  FlopCounter(const FlopCounter&) = delete;
  FlopCounter& operator=(const FlopCounter&) = delete;

  double flops() const;

 private:
  uint64_t handle_;  ///< of LibTorch's callback
};

}  // namespace fathom
