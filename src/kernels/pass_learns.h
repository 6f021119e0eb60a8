// Which pass an operation serves, for those that have one kernel for passes that learn and one for others.
#pragma once

namespace fathom::kernels {

/// Whether a backward pass may follow: gradients are recorded, or will be when this pass is taken again.
bool pass_learns();

/// While one lives, what this thread computes is taken again with gradients: the same kernels must give it.
class TakenAgain {
 public:
  TakenAgain();
  ~TakenAgain();
  TakenAgain(const TakenAgain&) = delete;
  TakenAgain& operator=(const TakenAgain&) = delete;

 private:
  bool before_;
};

}  // namespace fathom::kernels
