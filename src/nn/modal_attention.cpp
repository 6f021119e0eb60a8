// M texts, N pictures, T tokens of a text, P regions of a picture, S parts of either, Q queries, D width.
#include "nn/modal_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "nn/pair_blocks.h"
#include "nn/temperature.h"

namespace fathom {
namespace {

Linear projection(int64_t in, int64_t out) {
  return Linear(LinearOptions{
      .in = in, .out = out, .bias = false, .init_deviation = 1.0 / std::sqrt(static_cast<double>(in))});
}

at::Tensor widen(const at::Tensor& x) {
  return x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

/// True at parts that count: [N, S]. A text of no tokens counts as one of its first.
at::Tensor counted(const at::Tensor& length_N, int64_t parts) {
  return at::arange(parts, length_N.options()).unsqueeze(0).lt(length_N.clamp_min(1).unsqueeze(1));
}

/// Mean over the parts that count, of which all others are 0: [N, S, X] → [N, X].
at::Tensor mean_of_parts(const at::Tensor& x_NSX, const at::Tensor& length_N) {
  if (!length_N.defined()) return x_NSX.mean(1);
  return x_NSX.sum(1) / length_N.clamp_min(1).to(x_NSX.scalar_type()).unsqueeze(1);
}

/// For each query the cosine of its `whole` with the side's values, pooled by softmax over parts of
/// key · guide ÷ √D: [Q, N]. With weights w and values V, the pooled vector's product with u is w · (V u) and
/// its squared length w · (V Vᵀ) w, so that many queries make nothing of size Q·N·D.
at::Tensor pooled_cosine(const at::Tensor& guide_QD, const at::Tensor& whole_QD, const PairSide& side) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(guide_QD.size(1)));
  at::Tensor attention_NSQ = at::matmul(side.key_NSD, guide_QD.t()) * scale;
  if (side.length_N.defined())
    attention_NSQ =
        attention_NSQ.masked_fill(counted(side.length_N, attention_NSQ.size(1)).logical_not().unsqueeze(2),
                                  -std::numeric_limits<double>::infinity());
  const at::Tensor weight_NSQ = attention_NSQ.softmax(1);
  const at::Tensor product_NQ = (weight_NSQ * at::matmul(side.value_NSD, whole_QD.t())).sum(1);
  at::Tensor square_NQ;
  if (guide_QD.size(0) < side.value_NSD.size(1)) {
    square_NQ = at::matmul(weight_NSQ.transpose(1, 2), side.value_NSD).square().sum(2);
  } else {
    const at::Tensor gram_NSS = at::matmul(side.value_NSD, side.value_NSD.transpose(1, 2));
    square_NQ = (weight_NSQ * at::matmul(gram_NSS, weight_NSQ)).sum(1);
  }
  return (product_NQ / square_NQ.clamp_min(1e-12).sqrt()).t();
}

at::Tensor attention_scores(const PairSide& text, const PairSide& image) {
  const at::Tensor query_MD = mean_of_parts(text.key_NSD, text.length_N);
  const at::Tensor key_ND = mean_of_parts(image.key_NSD, image.length_N);
  return 0.5 *
         (pooled_cosine(query_MD, text.whole_ND, image) + pooled_cosine(key_ND, image.whole_ND, text).t());
}

at::Tensor late_scores(const PairSide& text, const PairSide& image) {
  const int64_t texts = text.key_NSD.size(0), tokens = text.key_NSD.size(1);
  const int64_t images = image.key_NSD.size(0), regions = image.key_NSD.size(1);
  const at::Tensor cosine = at::mm(text.key_NSD.flatten(0, 1), image.key_NSD.flatten(0, 1).t());
  const at::Tensor best_MTN = std::get<0>(cosine.view({texts, tokens, images, regions}).max(3));
  return mean_of_parts(best_MTN, text.length_N);
}

/// The tensors of a side that there are, and back.
std::vector<at::Tensor> pack(const PairSide& side) {
  std::vector<at::Tensor> tensors = {side.key_NSD};
  for (const at::Tensor& tensor : {side.whole_ND, side.value_NSD, side.length_N})
    if (tensor.defined()) tensors.push_back(tensor);
  return tensors;
}

PairSide unpack(const std::vector<at::Tensor>& tensors, const PairSide& like) {
  size_t next = 1;
  const auto take = [&](const at::Tensor& there) { return there.defined() ? tensors[next++] : at::Tensor(); };
  PairSide side{.key_NSD = tensors[0]};
  side.whole_ND = take(like.whole_ND);
  side.value_NSD = take(like.value_NSD);
  side.length_N = take(like.length_N);
  return side;
}

/// As square as a block of so many numbers can be.
PairBlockSize block_size(const PairSide& text, const PairSide& image, int64_t max_elements) {
  const int64_t tokens = text.key_NSD.size(1), regions = image.key_NSD.size(1);
  const int64_t per_pair = image.value_NSD.defined() ? std::max(tokens, regions) : tokens * regions;
  const int64_t pairs = std::max<int64_t>(1, max_elements / per_pair);
  const int64_t rows = std::clamp<int64_t>(static_cast<int64_t>(std::sqrt(static_cast<double>(pairs))), 1,
                                           std::max<int64_t>(1, text.key_NSD.size(0)));
  return {.rows = rows, .columns = std::max<int64_t>(1, pairs / rows)};
}

}  // namespace

ModalAttentionImpl::ModalAttentionImpl(const ModalAttentionOptions& options) : options_(options) {
  query_ = register_module("query", projection(options.text_dim, options.dim));
  key_ = register_module("key", projection(options.region_dim, options.dim));
  if (options.score == RegionScore::kAttention) {
    token_value_ = register_module("token_value", projection(options.text_dim, options.dim));
    region_value_ = register_module("region_value", projection(options.region_dim, options.dim));
  }
  log_scale_ = register_parameter("log_scale", at::empty({}));
  if (options.logit_bias) bias_ = register_parameter("logit_bias", at::empty({}));
}

PairSide ModalAttentionImpl::tokens(const at::Tensor& state_MTD, const at::Tensor& length_M,
                                    const at::Tensor& whole_MD, const ForwardContext& context) const {
  at::Tensor kept_MTD = state_MTD;
  if (length_M.defined())
    kept_MTD = at::where(counted(length_M, state_MTD.size(1)).unsqueeze(2), state_MTD,
                         at::zeros({}, state_MTD.options()));
  PairSide side{.whole_ND = whole_MD, .length_N = length_M};
  const at::Tensor query_MTD = query_->forward(kept_MTD, context, Feeds::kLoss);
  side.key_NSD = options_.score == RegionScore::kLate ? unit_length(query_MTD) : widen(query_MTD);
  if (!token_value_.is_empty())
    side.value_NSD = widen(token_value_->forward(kept_MTD, context, Feeds::kLoss));
  return side;
}

PairSide ModalAttentionImpl::regions(const at::Tensor& region_NPD, const at::Tensor& whole_ND,
                                     const ForwardContext& context) const {
  PairSide side{.whole_ND = whole_ND};
  const at::Tensor key_NPD = key_->forward(region_NPD, context, Feeds::kLoss);
  side.key_NSD = options_.score == RegionScore::kLate ? unit_length(key_NPD) : widen(key_NPD);
  if (!region_value_.is_empty())
    side.value_NSD = widen(region_value_->forward(region_NPD, context, Feeds::kLoss));
  return side;
}

at::Tensor ModalAttentionImpl::logit_scale() const {
  return bounded_scale(log_scale_);
}

at::Tensor ModalAttentionImpl::logit_bias() const {
  return bias_.defined() ? bias_.to(at::promote_types(bias_.scalar_type(), at::kFloat)) : bias_;
}

void ModalAttentionImpl::initialise(ParameterInit& init) const {
  init.constant("log_scale", -std::log(options_.initial_temperature));
  if (options_.logit_bias) init.constant("logit_bias", options_.initial_bias);
}

at::Tensor pair_scores(const PairSide& text, const PairSide& image, int64_t max_elements) {
  const auto block = [text_like = text, image_like = image](const std::vector<at::Tensor>& rows,
                                                            const std::vector<at::Tensor>& columns) {
    const PairSide row = unpack(rows, text_like), column = unpack(columns, image_like);
    return row.value_NSD.defined() ? attention_scores(row, column) : late_scores(row, column);
  };
  return pair_blocks(block, pack(text), pack(image), block_size(text, image, max_elements));
}

PairSide slice_side(const PairSide& side, int64_t start, int64_t count) {
  const auto cut = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, start, count) : x; };
  return {cut(side.whole_ND), cut(side.key_NSD), cut(side.value_NSD), cut(side.length_N)};
}

PairSide select_side(const PairSide& side, const at::Tensor& index) {
  const auto take = [&](const at::Tensor& x) { return x.defined() ? x.index_select(0, index) : x; };
  return {take(side.whole_ND), take(side.key_NSD), take(side.value_NSD), take(side.length_N)};
}

PairSide join_sides(const std::vector<PairSide>& sides) {
  int64_t most = 0;
  for (const PairSide& side : sides)
    if (side.key_NSD.defined()) most = std::max(most, side.key_NSD.size(1));
  const auto join = [&](at::Tensor PairSide::*member) {
    std::vector<at::Tensor> tensors;
    for (const PairSide& side : sides) {
      const at::Tensor& tensor = side.*member;
      if (!tensor.defined()) return at::Tensor();
      tensors.push_back(tensor.dim() == 3 ? at::constant_pad_nd(tensor, {0, 0, 0, most - tensor.size(1)})
                                          : tensor);
    }
    return at::cat(tensors);
  };
  return {join(&PairSide::whole_ND), join(&PairSide::key_NSD), join(&PairSide::value_NSD),
          join(&PairSide::length_N)};
}

}  // namespace fathom
