// The log-mel front end against numpy (tests/golden/mel_golden.py), Whisper's own filters, and a slow
// transform.
#include "data/audio/log_mel.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <numbers>

#include "base/file.h"
#include "base/random.h"
#include "base/safetensors.h"
#include "data/audio/log_mel_kernels.h"

namespace fathom::log_mel_test {
namespace {

std::vector<const MelKernels*> kernels_of_this_machine() {
  std::vector<const MelKernels*> all = {&kPortableMel};
  if (mel_kernels().lanes >= 8) all.push_back(&kAvx2Mel);
  if (mel_kernels().lanes >= 16) all.push_back(&kAvx512Mel);
  return all;
}

std::vector<float> floats_of(const TensorView& view) {
  std::vector<float> values(view.bytes.size() / sizeof(float));
  std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

double largest_gap(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double gap = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    gap = std::max(gap, std::abs(double{a[i]} - b[i]));
  return gap;
}

std::vector<float> noise(int64_t count, uint64_t seed) {
  Random random({seed});
  std::vector<float> samples(static_cast<size_t>(count));
  for (float& sample : samples) sample = static_cast<float>(0.1 * random.normal());
  return samples;
}

TEST(LogMel, EqualsWhisper) {
  const SafetensorsFile golden(FATHOM_GOLDENS "/audio/mel.safetensors");
  const std::vector<float> samples = floats_of(*golden.find("samples"));
  for (const int64_t bands : {80, 128}) {
    const std::vector<float> expected = floats_of(*golden.find(fmt::format("mel_{}", bands)));
    for (const MelKernels* kernels : kernels_of_this_machine()) {
      const Spectrogram mel = LogMel(bands, kernels).compute(samples);
      EXPECT_EQ(mel.num_bands, bands);
      EXPECT_EQ(mel.num_frames, 100);
      EXPECT_LE(largest_gap(mel.values, expected), 1e-3) << bands << " bands, " << kernels->lanes << " lanes";
    }
  }
}

/// The definition itself, in double precision.
std::vector<float> slow_log_mel(const std::vector<float>& samples, int64_t bands) {
  const MelFilters filters = slaney_filters({.num_bands = bands});
  const auto size = static_cast<int64_t>(samples.size()), frames = size / 160;
  std::vector<double> logs(static_cast<size_t>(bands * frames));
  for (int64_t t = 0; t < frames; ++t) {
    std::vector<double> power;
    for (int64_t k = 0; k <= 200; ++k) {
      std::complex<double> sum = 0;
      for (int64_t n = 0; n < 400; ++n) {
        int64_t at = std::abs(160 * t + n - 200);
        if (at >= size) at = 2 * (size - 1) - at;
        const double window = 0.5 - 0.5 * std::cos(2 * std::numbers::pi * static_cast<double>(n) / 400);
        sum += samples[static_cast<size_t>(at)] * window *
               std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(k * n % 400) / 400);
      }
      power.push_back(std::norm(sum));
    }
    for (size_t band = 0; band < static_cast<size_t>(bands); ++band) {
      double energy = 0;
      for (int32_t i = 0; i < filters.count[band]; ++i)
        energy += filters.weights[static_cast<size_t>(filters.start[band] + i)] *
                  power[static_cast<size_t>(filters.first[band] + i)];
      logs[band * static_cast<size_t>(frames) + static_cast<size_t>(t)] = std::log10(std::max(energy, 1e-10));
    }
  }
  const double floor = *std::max_element(logs.begin(), logs.end()) - 8;
  std::vector<float> values;
  for (const double x : logs) values.push_back(static_cast<float>((std::max(x, floor) + 4) / 4));
  return values;
}

TEST(LogMel, IsItsDefinitionForEveryLength) {
  for (const int64_t size : {400, 401, 559, 560, 1600, 2559, 2561, 2720, 5280}) {
    const std::vector<float> samples = noise(size, static_cast<uint64_t>(size));
    for (const MelKernels* kernels : kernels_of_this_machine()) {
      const Spectrogram mel = LogMel(40, kernels).compute(samples);
      EXPECT_EQ(mel.num_frames, size / 160);
      EXPECT_LE(largest_gap(mel.values, slow_log_mel(samples, 40)), 1e-4)
          << size << " samples, " << kernels->lanes << " lanes";
    }
  }
}

TEST(LogMel, ExtendsTheShortestClipsBySilence) {
  std::vector<float> samples = noise(30, 3);
  const Spectrogram mel = LogMel(80).compute(samples);
  EXPECT_EQ(mel.num_frames, 2);
  samples.resize(400);
  EXPECT_EQ(mel.values, LogMel(80).compute(samples).values);
  for (const float value : LogMel(80).compute({}).values)
    EXPECT_NEAR(value, -1.5, 1e-6) << "silence: (-10 + 4) / 4";
}

/// The array NAME.npy of a compressed npz archive, float32.
std::vector<float> read_npz(const std::string& path, const std::string& name) {
  const std::string file = read_file(path);
  const auto number = [&](size_t at, size_t count) {
    size_t value = 0;
    for (size_t i = 0; i < count; ++i)
      value |= static_cast<size_t>(static_cast<unsigned char>(file[at + i])) << (8 * i);
    return value;
  };
  for (size_t entry = file.find("PK\x01\x02"); entry != std::string::npos;
       entry = file.find("PK\x01\x02", entry + 4)) {
    if (file.substr(entry + 46, number(entry + 28, 2)) != name) continue;
    const size_t packed = number(entry + 20, 4), size = number(entry + 24, 4), local = number(entry + 42, 4);
    std::string content(size, '\0'),
        source = file.substr(local + 30 + number(local + 26, 2) + number(local + 28, 2), packed);
    z_stream stream{};
    inflateInit2(&stream, -MAX_WBITS);
    stream.next_in = reinterpret_cast<Bytef*>(source.data());
    stream.avail_in = static_cast<uInt>(source.size());
    stream.next_out = reinterpret_cast<Bytef*>(content.data());
    stream.avail_out = static_cast<uInt>(size);
    EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
    inflateEnd(&stream);
    const size_t start =
        10 + static_cast<unsigned char>(content[8]) + 256 * static_cast<unsigned char>(content[9]);
    std::vector<float> values((size - start) / sizeof(float));
    std::memcpy(values.data(), content.data() + start, values.size() * sizeof(float));
    return values;
  }
  ADD_FAILURE() << path << " has no " << name;
  return {};
}

TEST(MelFilters, AreWhispers) {
  const char* data = std::getenv("FATHOM_DATA");
  const std::string path = std::string(data ? data : "") + "/tokenizers/mel_filters.npz";
  if (!data || !std::filesystem::exists(path)) GTEST_SKIP() << "FATHOM_DATA names no folder with " << path;
  for (const int64_t bands : {80, 128}) {
    const std::vector<float> expected = read_npz(path, fmt::format("mel_{}.npy", bands));
    const MelFilters filters = slaney_filters({.num_bands = bands});
    std::vector<float> dense(static_cast<size_t>(bands * 201));
    for (size_t band = 0; band < static_cast<size_t>(bands); ++band)
      std::copy_n(filters.weights.begin() + filters.start[band], filters.count[band],
                  dense.begin() + static_cast<int64_t>(band) * 201 + filters.first[band]);
    EXPECT_LE(largest_gap(dense, expected), 1e-7) << "of weights up to 0.026";
  }
}

}  // namespace
}  // namespace fathom::log_mel_test
