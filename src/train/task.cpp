#include "train/task.h"

#include <torch/torch.h>

namespace fathom {

at::Tensor Task::forward_backward(std::span<const MicroBatch> micro_batches, const StepContext& step) {
  at::Tensor total;
  for (const MicroBatch& micro_batch : micro_batches) {
    if (&micro_batch == &micro_batches.back()) step.expect_last_backward();
    const at::Tensor share = loss(micro_batch, step);
    share.backward();
    total = total.defined() ? total + share.detach() : share.detach();
  }
  return total;
}

}  // namespace fathom
