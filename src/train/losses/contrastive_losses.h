// Losses over pairs of embeddings. R rows (queries), C columns (candidates).
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom {

/// Which pairs belong together and which do not; pairs in neither set are left out of every sum.
struct PairLabels {
  at::Tensor positive_RC;         ///< bool
  at::Tensor negative_RC;         ///< bool
  at::Tensor log_weight_RC = {};  ///< of negatives, whose mean weight in a row is 1; undefined: all weigh 1
  at::Tensor target_RC = {};      ///< what each positive counts; undefined: those of a row alike, together 1
};

/// Pairs of one owner are positives; of the others, those whose caption is also a caption of the image are
/// neither; the rest are negatives. Shapes: T texts, I images, K captions an image; owners (positions in the
/// data set) and captions (`caption_ids`) are int64. Without captions, only owners count. Result: T × I.
PairLabels label_pairs(const at::Tensor& owner_T, const at::Tensor& owner_I, const at::Tensor& caption_T = {},
                       const at::Tensor& caption_IK = {});
PairLabels transpose(const PairLabels& labels);

/// int64 hashes of rows of tokens, equal for equal captions whatever they are padded to.
at::Tensor caption_ids(const at::Tensor& tokens_BT, const at::Tensor& length_B);

/// Σ over rows of the mean (with targets, the sum so weighed) over the row's positives p of −log(exp z_p ÷
/// (exp z_p + Σ over negatives exp z_n)). With one positive a row, the InfoNCE of van den Oord et al.,
/// "Representation learning with contrastive predictive coding", 2018, equation 4; several never stand in
/// each other's denominator. `label_smoothing` ε gives every candidate that is not left out an equal part of
/// ε. Rows without positives count 0. A negative's weight multiplies its exp z_n (Robinson et al.,
/// "Contrastive learning with hard negative samples", ICLR 2021, equation 4 without the correction for false
/// negatives).
at::Tensor info_nce(const at::Tensor& logits_RC, const PairLabels& labels, double label_smoothing = 0.0);

/// Σ over rows of −Σ_c target_c · log softmax(z)_c.
at::Tensor soft_cross_entropy(const at::Tensor& logits_RC, const at::Tensor& target_RC);

/// Σ over labelled pairs of −log σ(±z), + for positives: Zhai et al., "Sigmoid loss for language image
/// pre-training", ICCV 2023, equation 2. A negative's weight multiplies its term.
at::Tensor pairwise_sigmoid(const at::Tensor& logits_RC, const PairLabels& labels);

/// Gives negatives weights ∝ exp(sharpness · similarity), of mean 1 in each row.
void weigh_negatives(PairLabels& labels, const at::Tensor& similarity_RC, double sharpness);

/// Σ over rows of ½ Σ_j (p_j − q_j)(log p_j − log q_j), the symmetric Kullback–Leibler divergence of the
/// row's two softmax distributions over the columns where `keep_RC` (bool). Rows without columns count 0.
at::Tensor symmetric_divergence(const at::Tensor& first_RC, const at::Tensor& second_RC,
                                const at::Tensor& keep_RC);

}  // namespace fathom
