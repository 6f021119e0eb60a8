// Which words a picture's captions hold, and how much each of them says. B samples, W ids of the vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "batch/batch.h"
#include "tensor/tensor_file.h"
#include "train/task.h"

namespace fathom {

/// What pictures are to name: the ids in the captions of their sample, each once, weighed by how few samples
/// hold it and brought to a sum of 1. Source: Huang et al., "Classification done right for vision-language
/// pre-training", NeurIPS 2024, section 3, whose weight of an id is taken from running counts as in the
/// authors' code: log((1 + samples) ÷ (1 + samples that hold it)), the step's own included.
///
/// Captions are those of the batch: where `data.text.mask_probability` hides words, hidden ones are not
/// asked for. Samples that lack picture or captions count nothing. The counts are equal on all ranks. One
/// thread; what is launched on the device does not depend on what tensors hold.
class WordTargets {
 public:
  struct Setup {
    int64_t vocab_size = 0;
    std::vector<int64_t> marks;  ///< ids that are no words; those beyond the vocabulary have no effect
    at::Device device = at::kCPU;
  };
  explicit WordTargets(const Setup& setup);

  /// Counts the samples of a step, those of other ranks too. Every rank calls it, once and before `loss`.
  void count(std::span<const MicroBatch> micro_batches, Collective& collective);
  /// Which ids the captions of each sample hold: bool [B, W].
  at::Tensor words(const Batch& batch) const;
  /// −Σ target · log softmax(logits) of each of R rows, whose ids are `word_RW` (bool): [R], float32 or
  /// wider. 0 where there are none, or only such as every sample holds.
  at::Tensor loss(const at::Tensor& logits_RW, const at::Tensor& word_RW) const;

  TensorMap state() const;
  /// A state without counts changes nothing. Errors (kCheckpoint): counts of another vocabulary.
  void load_state(const TensorMap& state);

 private:
  at::Tensor is_word_W_;  ///< bool
  at::Tensor seen_C_;     ///< int64, C = W + 1: how many samples hold each id; last, how many there were
};

}  // namespace fathom
