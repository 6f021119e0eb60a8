// Which negatives a contrastive objective meets, and how much each weighs, by the texts' similarity.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "base/config.h"
#include "tensor/tensor_file.h"
#include "train/losses/contrastive_losses.h"
#include "train/task.h"

namespace fathom {

struct HardNegativeConfig {
  int64_t refresh = 0;  ///< steps; 0 switches all of it off
  double momentum = 0.5;
  int64_t group = 1;
  double max_similarity = 1.0;
  double sharpness = 0.0;

  void fields(Fields& f);
  void validate() const;
};

/// A bank of moving text embeddings, one of every sample of the data set, equal on all ranks. Each step moves
/// those of its batch; every `refresh` steps the bank is made anew from them: the mean over all taken off
/// (what all texts share says nothing about two of them), then to unit length. Samples that no step has seen
/// are similar to none.
///
/// The order of epoch e is fixed once, `lead()` batches before it begins, on rank 0 for all, and is part of
/// the state; so it does not depend on prefetching, workers, ranks or interruptions. One thread.
class HardNegatives {
 public:
  struct Setup {
    HardNegativeConfig config;
    int64_t num_samples = 0;
    int64_t batch_size = 0;  ///< over all ranks
    int64_t dim = 0;
    int64_t seed = 0;
    at::TensorOptions options = {};  ///< of the bank: type and device
  };
  explicit HardNegatives(const Setup& setup);

  /// Moves the embeddings of samples `owner_N` (over all ranks) to the means of their texts, `text_LD`, L a
  /// multiple of N. Launches the same operations whatever the tensors hold.
  void observe(const at::Tensor& owner_N, const at::Tensor& text_LD);
  /// Takes pairs that are too similar from the negatives and weighs the rest, by the bank's similarity of the
  /// samples that rows and columns belong to.
  void apply(PairLabels& labels, const at::Tensor& owner_R, const at::Tensor& owner_C) const;
  /// Refreshes, and fixes the next epoch's order, when it is time. Every rank must call it.
  void after_step(const StepContext& step);

  /// The sampler's hook: the order of `epoch` where it is fixed, else `seeded`.
  std::vector<int64_t> order(int64_t epoch, std::vector<int64_t> seeded) const;
  /// Batches before an epoch's first at which its order is fixed: what a loader may prefetch at most.
  int64_t lead() const { return lead_; }

  const at::Tensor& bank() const { return bank_SD_; }
  TensorMap state() const;
  /// A state without a bank changes nothing. Errors (kCheckpoint): a bank of another shape.
  void load_state(const TensorMap& state);

 private:
  void refresh();
  void fix_order(int64_t epoch, Collective& collective);

  Setup setup_;
  int64_t batches_per_epoch_;
  int64_t lead_;
  at::Tensor moving_SD_;  ///< zero where nothing was seen
  at::Tensor bank_SD_;
  std::map<int64_t, at::Tensor> orders_;  ///< int64 [S] by epoch, on the CPU
};

}  // namespace fathom
