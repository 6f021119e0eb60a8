// What samples of a batch are mixed with, and in what shares. B samples.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>

namespace fathom {

/// 65,536 draws of Beta(α, α), mirrored to at least ½: float on the CPU. Made once, on the host, since a
/// device would have to be waited for.
at::Tensor mixup_shares(double alpha);

/// What a mixed sample keeps of itself: drawn by its key alone from `mixup_shares`, so that ranks,
/// micro-batches and replays of a recorded step have no say in it.
class MixShares {
 public:
  MixShares(double alpha, at::Device device);
  /// float [B], at least ½. `key_B`: int64, on the device.
  at::Tensor draw(const at::Tensor& key_B) const;

 private:
  at::Tensor share_N_;
};

/// Where the sample stands that each of B is mixed with, int64 [B] (`options` are those of keys). Neighbours
/// swap, so that micro-batches and ranks with even numbers of samples make the same pairs as the whole batch;
/// the last of an odd number is its own partner.
at::Tensor mix_partners(int64_t samples, const at::TensorOptions& options);

/// λ·x + (1 − λ)·other in each of B rows, λ being the row's share.
at::Tensor mix_rows(const at::Tensor& x, const at::Tensor& other, const at::Tensor& share_B);

}  // namespace fathom
