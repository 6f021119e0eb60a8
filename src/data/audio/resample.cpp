#include "data/audio/resample.h"

#include <soxr.h>

#include <cmath>

#include "base/error.h"

namespace fathom {
namespace {

constexpr size_t kStep = 4096;  ///< samples asked for at a time

}  // namespace

struct Resampler::State {
  soxr_t stream = nullptr;
  double ratio = 1;
  ~State() { soxr_delete(stream); }

  /// Feeds `samples`, or ends the stream where `ends`, and takes all that comes.
  void run(std::span<const float> samples, bool ends, std::vector<float>& out) {
    size_t done = 0;
    while (true) {
      const size_t before = out.size();
      const size_t room = kStep + static_cast<size_t>(std::ceil(static_cast<double>(samples.size()) * ratio));
      out.resize(before + room);
      size_t taken = 0, made = 0;
      const float* in = ends ? nullptr : samples.data() + done;
      const soxr_error_t error = soxr_process(stream, in, ends ? 0 : samples.size() - done, &taken,
                                              out.data() + before, room, &made);
      out.resize(before + made);
      FATHOM_CHECK(error == nullptr, "[resample] {}", error);
      done += taken;
      if (ends ? made == 0 : done == samples.size()) return;
    }
  }
};

Resampler::Resampler(double from_rate, double to_rate) {
  FATHOM_CHECK(from_rate > 0 && to_rate > 0, "[resample] expected positive rates, got {} and {}", from_rate,
               to_rate);
  if (from_rate == to_rate) return;
  state_ = std::make_unique<State>();
  state_->ratio = to_rate / from_rate;
  const soxr_io_spec_t floats = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
  const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
  const soxr_runtime_spec_t one_thread = soxr_runtime_spec(1);
  soxr_error_t error = nullptr;
  state_->stream = soxr_create(from_rate, to_rate, 1, &error, &floats, &quality, &one_thread);
  FATHOM_CHECK(error == nullptr, "[resample] {}", error);
}
Resampler::~Resampler() = default;
Resampler::Resampler(Resampler&&) noexcept = default;

void Resampler::feed(std::span<const float> samples, std::vector<float>& out) {
  if (samples.empty()) return;  // no samples mean the end to soxr
  if (state_)
    state_->run(samples, /*ends=*/false, out);
  else
    out.insert(out.end(), samples.begin(), samples.end());
}

void Resampler::finish(std::vector<float>& out) {
  if (state_) state_->run({}, /*ends=*/true, out);
}

std::vector<float> resample(std::span<const float> samples, double from_rate, double to_rate) {
  Resampler resampler(from_rate, to_rate);
  std::vector<float> out;
  resampler.feed(samples, out);
  resampler.finish(out);
  return out;
}

}  // namespace fathom
