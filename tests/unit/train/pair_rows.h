// Embeddings as towers would give them, and what a contrastive objective with targets in shares makes of
// them by its definition, one pair after another.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "contrastive_fixture.h"
#include "nn/temperature.h"

namespace fathom::testing {

/// Five samples, each with two views of its picture and two captions, one of which two samples share.
class PairRows : public ::testing::Test {
 protected:
  static constexpr int64_t kSamples = 5;

  PairRows() {
    torch::manual_seed(12);
    image_ = unit_length(torch::randn({2 * kSamples, 12}, at::kDouble)).requires_grad_();
    text_ = unit_length(torch::randn({2 * kSamples, 12}, at::kDouble)).requires_grad_();
  }

  /// Of some samples in a row, mixed as asked for.
  ContrastiveRows rows(int64_t start = 0, int64_t count = kSamples) const {
    const auto part = [&](const at::Tensor& x, int64_t each) {
      return x.narrow(0, each * start, each * count);
    };
    ContrastiveRows rows;
    rows.modalities = {{.modality = Modality::kImage, .side = {.whole_ND = part(image_, 2)}},
                       {.modality = Modality::kText, .side = {.whole_ND = part(text_, 2)}}};
    rows.owner_B = part(at::tensor(owner_, at::kLong), 1);
    rows.caption_M = part(at::tensor(caption_, at::kLong), 2);
    if (!share_.empty())
      rows.mixed =
          note_mixture(part(at::tensor(share_, at::kDouble), 1),
                       part(at::tensor(partner_, at::kLong), 1) - start, rows.owner_B, rows.caption_M);
    return rows;
  }
  at::Tensor loss(const ContrastiveConfig& config, const ContrastiveRows& rows) const {
    return ContrastiveObjective({.model = model_, .config = config}).loss(rows, {.collective = *collective_});
  }
  at::Tensor loss(const ContrastiveConfig& config = {}) const { return loss(config, rows()); }

  at::Tensor by_hand(double soft = 0, double temperature = 1) const {
    const at::Tensor logits_VM = at::mm(image_, text_.t()) * model_->logit_scale().detach();
    const at::Tensor sum = shared_targets(logits_VM) * (1 - soft);
    return (soft > 0 ? sum + soft * soft_part(logits_VM, temperature) : sum) / (2 * 2 * kSamples);
  }

  static size_t at_place(int64_t i) { return static_cast<size_t>(i); }
  double share(int64_t sample) const { return share_.empty() ? 1 : share_[at_place(sample)]; }
  /// Whose picture is mixed into that of `sample`; −1: none is.
  int64_t other(int64_t sample) const { return share(sample) < 1 ? partner_[at_place(sample)] : -1; }

  DualTower model_ = make_model({});
  at::Tensor image_, text_;
  std::vector<int64_t> owner_ = {7, 3, 8, 1, 0}, caption_ = {10, 11, 20, 21, 30, 31, 20, 41, 50, 51};
  std::vector<int64_t> partner_ = {1, 0, 3, 2, 4};
  std::vector<double> share_;  ///< of each sample; none: nothing is mixed
  std::unique_ptr<Collective> collective_ = make_solo_collective();  ///< outlives the gradients through it

 private:
  bool has_caption(int64_t sample, int64_t m) const {
    return sample >= 0 && (caption_[at_place(2 * sample)] == caption_[at_place(m)] ||
                           caption_[at_place(2 * sample + 1)] == caption_[at_place(m)]);
  }
  /// −log(exp z_p ÷ (exp z_p + Σ over `negatives` exp z_n)).
  static at::Tensor against(const at::Tensor& logits_C, int64_t positive,
                            const std::vector<int64_t>& negatives) {
    std::vector<at::Tensor> all = {logits_C[positive]};
    for (const int64_t n : negatives) all.push_back(logits_C[n]);
    return at::logsumexp(at::stack(all), {0}) - logits_C[positive];
  }
  at::Tensor shared_targets(const at::Tensor& logits_VM) const {
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (int64_t row = 0; row < 2 * kSamples; ++row) {
      const int64_t sample = row / 2;
      // A picture: what it has of a sample falls on that sample's captions alike.
      for (const auto& [held, part] :
           {std::pair{sample, share(sample)}, std::pair{other(sample), 1 - share(sample)}}) {
        std::vector<int64_t> negatives;
        for (int64_t m = 0; m < 2 * kSamples; ++m)
          if (m / 2 != held && !has_caption(held, m)) negatives.push_back(m);
        for (int64_t m = 0; m < 2 * kSamples; ++m)
          if (m / 2 == held) sum = sum + part / 2 * against(logits_VM[row], m, negatives);
      }
      // A text: pictures count by what they have of its sample.
      double held_of_all = 0;
      for (int64_t v = 0; v < 2 * kSamples; ++v)
        held_of_all += (v / 2 == sample) * share(v / 2) + (other(v / 2) == sample) * (1 - share(v / 2));
      for (const bool own : {true, false}) {
        const auto held = [&](int64_t v) { return own ? v / 2 : other(v / 2); };
        std::vector<int64_t> negatives;
        for (int64_t v = 0; v < 2 * kSamples; ++v)
          if (held(v) != sample && !has_caption(held(v), row)) negatives.push_back(v);
        for (int64_t v = 0; v < 2 * kSamples; ++v)
          if (held(v) == sample)
            sum = sum + (own ? share(v / 2) : 1 - share(v / 2)) / held_of_all *
                            against(logits_VM.t()[row], v, negatives);
      }
    }
    return sum;
  }
  double part(int64_t picture, int64_t sample) const {
    return (picture == sample) * share(picture) + (other(picture) == sample) * (1 - share(picture));
  }
  at::Tensor soft_part(const at::Tensor& logits_VM, double temperature) const {
    const at::Tensor mean_SD = text_.detach().view({kSamples, 2, -1}).mean(1);
    const auto alike = [&](int64_t a, int64_t b) {
      const double cosine =
          (mean_SD[a].dot(mean_SD[b]) / mean_SD[a].norm() / mean_SD[b].norm()).item<double>();
      return std::exp(cosine / temperature);
    };
    const auto guide = [&](int64_t a, int64_t b) {
      double all = 0;
      for (int64_t i = 0; i < kSamples; ++i) all += alike(a, i);
      return alike(a, b) / all;
    };
    const auto of_picture = [&](int64_t picture, int64_t text) {
      double sum = 0;
      for (int64_t i = 0; i < kSamples; ++i) sum += part(picture, i) * guide(i, text);
      return sum;
    };
    const auto unscaled = [&](int64_t text, int64_t picture) {
      double sum = 0;
      for (int64_t i = 0; i < kSamples; ++i) sum += guide(text, i) * part(picture, i);
      return sum;
    };
    at::Tensor sum = at::zeros({}, at::kDouble);
    const at::Tensor image_VM = logits_VM.log_softmax(1), text_MV = logits_VM.t().log_softmax(1);
    for (int64_t row = 0; row < 2 * kSamples; ++row) {
      double all = 0;
      for (int64_t i = 0; i < kSamples; ++i) all += unscaled(row / 2, i);
      for (int64_t column = 0; column < 2 * kSamples; ++column)
        sum = sum - of_picture(row / 2, column / 2) / 2 * image_VM[row][column] -
              unscaled(row / 2, column / 2) / all / 2 * text_MV[row][column];
    }
    return sum;
  }
};

}  // namespace fathom::testing
