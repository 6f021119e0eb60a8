// LibTorch's switch for algorithms that add up in one order.
#pragma once

#include <ATen/Context.h>

namespace fathom::testing {

/// On for as long as this lives, with errors where there is no such algorithm; or, if told so, off.
class DeterministicAlgorithms {
 public:
  explicit DeterministicAlgorithms(bool on = true) : before_(at::globalContext().deterministicAlgorithms()) {
    set(on);
  }
  ~DeterministicAlgorithms() { set(before_); }
  DeterministicAlgorithms(const DeterministicAlgorithms&) = delete;
  DeterministicAlgorithms& operator=(const DeterministicAlgorithms&) = delete;

 private:
  static void set(bool on) { at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false); }
  bool before_;
};

}  // namespace fathom::testing
