#include "data/audio/log_mel.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "data/audio/log_mel_kernels.h"

namespace fathom {
namespace {

/// The clip with its ends mirrored, as rows of one hop each; only rows at the ends are copied.
class MirroredRows {
 public:
  explicit MirroredRows(std::span<const float> samples) : samples_(samples) {}

  /// Samples [hop · 160 − 200, hop · 160 − 40) of the clip. `room` takes them where they are no plain part of
  /// it.
  const float* row(int64_t hop, std::array<float, kMelHop>& room) const {
    const auto size = static_cast<int64_t>(samples_.size());
    const int64_t start = hop * kMelHop - kMelWindow / 2;
    if (start >= 0 && start + kMelHop <= size) return samples_.data() + start;
    for (int64_t i = 0; i < kMelHop; ++i) {
      int64_t place = std::abs(start + i);
      if (place >= size) place = 2 * (size - 1) - place;
      room[static_cast<size_t>(i)] = samples_[static_cast<size_t>(std::max<int64_t>(place, 0))];
    }
    return room.data();
  }

 private:
  std::span<const float> samples_;
};

}  // namespace

LogMel::LogMel(int64_t num_bands, const MelKernels* kernels)
    : num_bands_(num_bands),
      tables_(std::make_unique<const MelTables>(num_bands)),
      kernels_(kernels ? kernels : &mel_kernels()) {
  FATHOM_CHECK(num_bands >= 1 && num_bands <= 1024, "[log_mel] expected 1 to 1024 bands, got {}", num_bands);
}
LogMel::~LogMel() = default;
LogMel::LogMel(LogMel&&) noexcept = default;

int64_t LogMel::num_frames(int64_t num_samples) {
  return std::max(num_samples, kMelWindow) / kMelHop;
}

Spectrogram LogMel::compute(std::span<const float> samples) const {
  std::array<float, kMelWindow> extended{};
  if (static_cast<int64_t>(samples.size()) < kMelWindow) {
    std::copy(samples.begin(), samples.end(), extended.begin());
    samples = extended;
  }
  const int64_t frames = num_frames(static_cast<int64_t>(samples.size())), lanes = kernels_->lanes;
  Spectrogram result{.num_bands = num_bands_, .num_frames = frames};
  result.values.resize(static_cast<size_t>(num_bands_ * frames));
  const MirroredRows mirrored(samples);
  std::array<std::array<float, kMelHop>, kMaxMelLanes + 4> room;
  std::array<const float*, kMaxMelLanes + 4> rows{};
  float largest = -10.0F;
  for (int64_t first = 0; first < frames; first += lanes) {
    const int64_t count = std::min(lanes, frames - first), last = first + count + kHopsPerFrame - 2;
    for (int64_t i = 0; i < lanes + 4; ++i) {
      const auto slot = static_cast<size_t>(i);
      rows[slot] = first + i > last ? rows[slot - 1] : mirrored.row(first + i, room[slot]);
    }
    const MelBlock block{rows.data(), count, result.values.data() + first, frames};
    largest = std::max(largest, kernels_->block(block, *tables_));
  }
  kernels_->finish(result.values.data(), static_cast<int64_t>(result.values.size()), largest - 8.0F);
  return result;
}

}  // namespace fathom
