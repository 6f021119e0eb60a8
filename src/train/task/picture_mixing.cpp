// B samples, N = V·B views of them.
#include "train/task/picture_mixing.h"

#include <torch/torch.h>

#include <utility>

#include "tensor/random_keys.h"

namespace fathom {
namespace {

// Uses of a sample's key, beside the one of `MixShares`.
constexpr int64_t kWhetherStream = (int64_t{1} << 41) + 1;
constexpr int64_t kBoxOrWholeStream = (int64_t{1} << 41) + 2;
constexpr int64_t kBoxPlaceStream = (int64_t{1} << 41) + 3;

/// Which of `places` lie in the `length_N` from a random start on, wholly among them: bool [N, places].
/// `start_N`: uniform in [0, 1).
at::Tensor random_span(int64_t places, const at::Tensor& length_N, const at::Tensor& start_N) {
  const at::Tensor first_N1 = (start_N * (places + 1 - length_N)).floor().unsqueeze(1);
  const at::Tensor place_P = at::arange(places, length_N.options());
  return place_P.ge(first_N1).logical_and(place_P.lt(first_N1 + length_N.unsqueeze(1)));
}

}  // namespace

PictureMixing::PictureMixing(const Setup& setup) : setup_(setup), shares_(setup.alpha, setup.device) {}

MixedPictures PictureMixing::mix(const at::Tensor& image_NCHW, const at::Tensor& key_B) const {
  const int64_t samples = key_B.size(0), views = image_NCHW.size(0) / samples;
  const int64_t height = image_NCHW.size(2), width = image_NCHW.size(3);
  const at::Tensor partner_B = mix_partners(samples, key_B.options());
  at::Tensor alone_B = partner_B.eq(at::arange(samples, key_B.options()));
  if (setup_.mix_share < 1)
    alone_B = alone_B.logical_or(keyed_uniform(key_B, {}, kWhetherStream).ge(setup_.mix_share));
  at::Tensor share_B = shares_.draw(key_B).masked_fill(alone_B, 1);
  const at::Tensor other_N =
      (partner_B.unsqueeze(1) * views + at::arange(views, partner_B.options())).flatten();
  const at::Tensor other_NCHW = image_NCHW.index_select(0, other_N);
  const auto of_views = [&](const at::Tensor& value_B) { return value_B.repeat_interleave(views); };
  if (setup_.cutmix_share == 0)
    return {mix_rows(image_NCHW, other_NCHW, of_views(share_B)), partner_B, share_B};

  const at::Tensor side_B = (1 - share_B).sqrt();
  const at::Tensor high_B = (side_B * height).round(), wide_B = (side_B * width).round();
  const at::Tensor boxed_B = keyed_uniform(key_B, {}, kBoxOrWholeStream).lt(setup_.cutmix_share);
  const at::Tensor left_B = 1 - high_B * wide_B / static_cast<double>(height * width);
  share_B = at::where(boxed_B, left_B, share_B);
  const at::Tensor start_N2 = keyed_uniform(keys_of_rows(key_B, views), {2}, kBoxPlaceStream);
  const at::Tensor cut_NHW =
      random_span(height, of_views(high_B), start_N2.select(1, 0))
          .unsqueeze(2)
          .logical_and(random_span(width, of_views(wide_B), start_N2.select(1, 1)).unsqueeze(1));
  const auto everywhere = [&](const at::Tensor& value_B) { return of_views(value_B).view({-1, 1, 1}); };
  const at::Tensor own_NHW =
      at::where(everywhere(boxed_B), cut_NHW.logical_not().to(at::kFloat), everywhere(share_B));
  return {at::lerp(other_NCHW, image_NCHW, own_NHW.unsqueeze(1).to(image_NCHW.scalar_type())), partner_B,
          share_B};
}

}  // namespace fathom
