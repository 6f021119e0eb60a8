// B samples or rows, N draws.
#include "train/task/sample_mixing.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

/// Gamma(α, 1) by Marsaglia and Tsang's method ("A simple method for generating gamma variables", ACM TOMS
/// 2000).
double draw_gamma(double alpha, Random& random) {
  if (alpha < 1.0) return draw_gamma(alpha + 1.0, random) * std::pow(random.uniform(), 1.0 / alpha);
  const double d = alpha - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  while (true) {
    const double x = random.normal(), v = std::pow(1.0 + c * x, 3.0);
    if (v > 0.0 && std::log(random.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

/// Beta(α, α); where α is so small that both parts vanish, its limit: one or the other end.
double draw_beta(double alpha, Random& random) {
  const double x = draw_gamma(alpha, random), y = draw_gamma(alpha, random);
  return x + y > 0.0 ? x / (x + y) : 1.0;
}

constexpr int64_t kNumShares = 1 << 16;
/// Tells this use of a sample's key from those of layers, whose streams are small.
constexpr int64_t kMixStream = int64_t{1} << 41;

}  // namespace

at::Tensor mixup_shares(double alpha) {
  at::Tensor share_N = at::empty({kNumShares}, at::kFloat);
  Random random(/*seed=*/0, /*stream=*/0x6d69787570);
  float* shares = share_N.mutable_data_ptr<float>();
  for (int64_t i = 0; i < kNumShares; ++i) {
    const double drawn = draw_beta(alpha, random);
    shares[i] = static_cast<float>(std::max(drawn, 1.0 - drawn));
  }
  return share_N;
}

MixShares::MixShares(double alpha, at::Device device) : share_N_(mixup_shares(alpha).to(device)) {}

at::Tensor MixShares::draw(const at::Tensor& key_B) const {
  return share_N_.index_select(0, keyed_bits(key_B, {}, kMixStream).remainder(kNumShares));
}

at::Tensor mix_partners(int64_t samples, const at::TensorOptions& options) {
  return at::arange(samples, options).bitwise_xor(1).clamp_max(samples - 1);
}

at::Tensor mix_rows(const at::Tensor& x, const at::Tensor& other, const at::Tensor& share_B) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  return at::lerp(other, x, share_B.view(shape).to(x.scalar_type()));
}

}  // namespace fathom
