// What rows of one modality are to find among columns of another. B samples, S of all ranks; R rows, C
// columns; M captions, L of all ranks; D width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>

#include "train/losses/contrastive_losses.h"

namespace fathom {

/// What pictures have of others (task/picture_mixing.h), which their sample's number does not say.
struct MixedIn {
  at::Tensor share_B;    ///< what a picture has of its own sample, at most 1
  at::Tensor owner_B;    ///< int64: the sample whose picture the rest is of; `kNobody` where there is no rest
  at::Tensor caption_M;  ///< int64: captions of that sample; `kNobody` likewise

  bool defined() const { return share_B.defined(); }
};
/// No number of a sample and no hash of a caption.
constexpr int64_t kNobody = std::numeric_limits<int64_t>::min();

/// `partner_B`: where the sample of the rest stands, whose number and captions are among the others'.
MixedIn note_mixture(const at::Tensor& share_B, const at::Tensor& partner_B, const at::Tensor& owner_B,
                     const at::Tensor& caption_M);

/// How much of a loss is cross-entropy with soft targets, whose logits are divided by `temperature`. So are
/// their gradients, twice; what they weigh does not change (Hinton et al., "Distilling the knowledge in a
/// neural network", 2015).
struct SoftShare {
  double share = 0.0;
  double temperature = 1.0;
};

struct PairTargets {
  PairLabels own;       ///< by the samples that rows and columns are of
  PairLabels mixed_in;  ///< by the sample mixed into a picture instead of the picture's own; may be undefined
  at::Tensor soft_RC;   ///< a distribution over all columns; may be undefined

  /// Rows are pictures: a share λ of a row's target falls on its own captions, 1 − λ on those of the sample
  /// mixed into it, so the loss is λ and 1 − λ times that of either sample (Lee et al., "i-Mix: a
  /// domain-agnostic strategy for contrastive representation learning", ICLR 2021).
  void share_among_columns(const at::Tensor& share_R);
  /// Columns are pictures: each row's target over them is what they have of it, brought to a sum of 1.
  void share_among_rows(const at::Tensor& share_C);

  /// Σ over rows of InfoNCE, of which `soft` is cross-entropy with `soft_RC`.
  at::Tensor info_nce(const at::Tensor& logits_RC, double label_smoothing, const SoftShare& soft) const;
};

/// Rows of samples, each a distribution over samples.
struct SoftTargets {
  at::Tensor picture_SS;  ///< of pictures over texts
  at::Tensor text_SS;     ///< of texts over pictures
};
/// Softmax of the cosines between samples' texts ÷ `temperature`, the same both ways, without gradients; a
/// sample's text is the mean of its captions' embeddings (`text_LD`, those of one sample side by side). After
/// Gao et al., "SoftCLIP: softer cross-modal alignment makes CLIP stronger", AAAI 2024, whose guides are
/// features of regions and of tags. Where pictures are mixed, a picture has the same mixture of rows as of
/// samples, and a text's part for a sample is divided by what pictures have of that. All of all ranks.
SoftTargets similar_texts(const at::Tensor& text_LD, const at::Tensor& owner_S, const MixedIn& mixed,
                          double temperature);
/// A target over samples as one over their rows: `row_each` rows of each of B samples, whose part is divided
/// evenly among `column_each` columns.
at::Tensor target_of_rows(const at::Tensor& target_BS, int64_t row_each, int64_t column_each);

/// The mean embedding of each of `samples`, of unit length: [samples, D].
at::Tensor sample_means(const at::Tensor& embedding_RD, int64_t samples);

}  // namespace fathom
