// How well a text fits a picture, token by token and region by region. M texts, N pictures, T tokens of a
// text, P regions of a picture, S parts of either, D width of the space that both share.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <vector>

#include "nn/forward_context.h"
#include "nn/init.h"
#include "nn/linear.h"

namespace fathom {

/// kAttention: softmax over regions of the tokens' mean attention pools the regions, compared with the text;
/// softmax over tokens of the regions' mean attention pools the tokens, compared with the picture; the score
/// is the mean of both cosines. kLate: the mean over tokens of the largest cosine with any region (Yao et
/// al., "FILIP: fine-grained interactive language-image pre-training", ICLR 2022, equation 4), which can
/// align a word with a region.
enum class RegionScore { kNone, kAttention, kLate };

/// What the texts or the pictures of pairs bring, in float32 or wider.
struct PairSide {
  at::Tensor whole_ND;   ///< unit-length embeddings
  at::Tensor key_NSD;    ///< queries of tokens, keys of regions; of unit length for kLate
  at::Tensor value_NSD;  ///< what is pooled; undefined for kLate
  at::Tensor length_N;   ///< int64: parts that count; undefined: all
};

struct ModalAttentionOptions {
  RegionScore score = RegionScore::kAttention;
  int64_t text_dim = 0;
  int64_t region_dim = 0;
  int64_t dim = 0;
  double initial_temperature = 0.07;
  bool logit_bias = false;
  double initial_bias = -10.0;
};

/// The projections of tokens and regions, and the temperature of their scores.
class ModalAttentionImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit ModalAttentionImpl(const ModalAttentionOptions& options);

  /// From states [M, T, text_dim] and lengths [M] (may be undefined), and the texts' embeddings. What stands
  /// at padded places does not matter.
  PairSide tokens(const at::Tensor& state_MTD, const at::Tensor& length_M, const at::Tensor& whole_MD,
                  const ForwardContext& context = {}) const;
  /// From features [N, P, region_dim] and the pictures' embeddings.
  PairSide regions(const at::Tensor& region_NPD, const at::Tensor& whole_ND,
                   const ForwardContext& context = {}) const;

  /// What scores are multiplied with (nn/temperature.h), and what is added then (may be undefined).
  at::Tensor logit_scale() const;
  at::Tensor logit_bias() const;

  void initialise(ParameterInit& init) const override;
  const ModalAttentionOptions& options() const { return options_; }

 private:
  ModalAttentionOptions options_;
  Linear query_{nullptr};
  Linear key_{nullptr};
  Linear token_value_{nullptr};
  Linear region_value_{nullptr};
  at::Tensor log_scale_;
  at::Tensor bias_;
};
TORCH_MODULE(ModalAttention);

/// Numbers that a block of pairs may hold at once in one tensor.
inline constexpr int64_t kMaxPairElements = int64_t{1} << 24;

/// The scores of all pairs, in [−1, 1]: [M, N]. Computed by blocks of about `max_elements` numbers, in the
/// backward pass again, so memory is that of the inputs, the scores and a few such blocks; blocks change
/// rounding only. REQUIRES sides of one `ModalAttention`, at least one part each.
at::Tensor pair_scores(const PairSide& text, const PairSide& image, int64_t max_elements = kMaxPairElements);
/// Rows [start, start + count) of a side, and those that an index names.
PairSide slice_side(const PairSide& side, int64_t start, int64_t count);
PairSide select_side(const PairSide& side, const at::Tensor& index);
/// One behind the other, padded with zeros to the most parts.
PairSide join_sides(const std::vector<PairSide>& sides);

}  // namespace fathom
