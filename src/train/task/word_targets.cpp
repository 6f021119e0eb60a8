#include "train/task/word_targets.h"

#include <torch/torch.h>

#include "base/error.h"

namespace fathom {
namespace {

constexpr const char* kSeen = "words.seen";

/// Which samples have a picture and captions: bool [B].
at::Tensor complete(const Batch& batch) {
  const bool may_be = batch.image_BCHW.defined() && batch.tokens_BT.defined();
  at::Tensor complete_B = at::full({batch.size()}, may_be, batch.index_B.options().dtype(at::kBool));
  for (const at::Tensor& has_B : {batch.has_image_B, batch.has_text_B})
    if (has_B.defined()) complete_B = complete_B.logical_and(has_B);
  return complete_B;
}

}  // namespace

WordTargets::WordTargets(const Setup& setup)
    : is_word_W_(at::ones({setup.vocab_size}, at::kBool)),
      seen_C_(at::zeros({setup.vocab_size + 1}, at::TensorOptions().dtype(at::kLong).device(setup.device))) {
  for (const int64_t mark : setup.marks)
    if (mark < setup.vocab_size) is_word_W_[mark] = false;
  is_word_W_ = is_word_W_.to(setup.device);
}

at::Tensor WordTargets::words(const Batch& batch) const {
  const int64_t vocab_size = is_word_W_.size(0);
  if (!batch.tokens_BT.defined()) return at::zeros({batch.size(), vocab_size}, is_word_W_.options());
  const at::Tensor place_T = at::arange(batch.tokens_BT.size(1), batch.tokens_BT.options());
  const at::Tensor padding_MT = place_T.unsqueeze(0).ge(batch.length_B.unsqueeze(1));
  // What is padding goes to a column of its own.
  const at::Tensor id_BN = batch.tokens_BT.masked_fill(padding_MT, vocab_size).reshape({batch.size(), -1});
  const at::Tensor held_BC =
      at::zeros({batch.size(), vocab_size + 1}, is_word_W_.options()).scatter(1, id_BN, true);
  return held_BC.narrow(1, 0, vocab_size).logical_and(is_word_W_).logical_and(complete(batch).unsqueeze(1));
}

void WordTargets::count(std::span<const MicroBatch> micro_batches, Collective& collective) {
  const torch::NoGradGuard no_grad;
  at::Tensor step_C = at::zeros_like(seen_C_);
  for (const MicroBatch& micro_batch : micro_batches)
    step_C += at::cat({words(micro_batch.batch), complete(micro_batch.batch).unsqueeze(1)}, 1).sum(0);
  collective.all_reduce(step_C);
  seen_C_.add_(step_C);
}

at::Tensor WordTargets::loss(const at::Tensor& logits_RW, const at::Tensor& word_RW) const {
  const at::ScalarType type = at::promote_types(logits_RW.scalar_type(), at::kFloat);
  const int64_t vocab_size = is_word_W_.size(0);
  const at::Tensor log_C = (seen_C_ + 1).to(at::kDouble).log();
  const at::Tensor weight_W = (log_C[vocab_size] - log_C.narrow(0, 0, vocab_size)).to(type);
  const at::Tensor weight_RW = word_RW * weight_W;
  const at::Tensor target_RW = weight_RW / weight_RW.sum(1, true).clamp_min(1e-12);
  return -(target_RW * logits_RW.to(type).log_softmax(1)).sum(1);
}

TensorMap WordTargets::state() const {
  return {{kSeen, seen_C_}};
}

void WordTargets::load_state(const TensorMap& state) {
  const auto found = state.find(kSeen);
  if (found == state.end()) return;
  if (found->second.sizes() != seen_C_.sizes())
    fail(ErrorKind::kCheckpoint, "contrastive.word_weight: the counts of words are of another vocabulary");
  seen_C_.copy_(found->second);
}

}  // namespace fathom
