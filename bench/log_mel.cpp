// How long do 64 clips of 30 seconds take to become Whisper's log-mel spectrograms?
//
//   bench_log_mel [--threads N] [--peer "python bench/peers/log_mel.py"]
//
// Clips are noise in memory at 16 kHz. With a peer, rounds alternate: ours (a clip a thread at a time),
// torchaudio on all clips as one batch, torchaudio clip by clip; both on N threads. Seconds are wall-clock
// seconds, so measure on a quiet machine. One JSON line for each number of bands.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/random.h"
#include "base/version.h"
#include "data/audio/log_mel.h"
#include "peer_process.h"

namespace fathom {
namespace {

constexpr int64_t kClips = 64;
constexpr int64_t kSamples = 30 * LogMel::kSampleRate;
constexpr int kRounds = 9;
constexpr int kWarmUpRounds = 2;

std::vector<std::vector<float>> make_clips() {
  std::vector<std::vector<float>> clips(kClips, std::vector<float>(kSamples));
  parallel_for_each(kClips, num_hardware_threads(), [&](int64_t i) {
    Random random({static_cast<uint64_t>(i)});
    for (float& sample : clips[static_cast<size_t>(i)])
      sample = static_cast<float>(random.uniform(-0.3, 0.3));
  });
  return clips;
}

double our_round(const LogMel& log_mel, const std::vector<std::vector<float>>& clips, int64_t threads) {
  std::vector<Spectrogram> results(clips.size());
  const auto start = std::chrono::steady_clock::now();
  parallel_for_each(kClips, threads, [&](int64_t i) {
    results[static_cast<size_t>(i)] = log_mel.compute(clips[static_cast<size_t>(i)]);
  });
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

struct Times {
  std::vector<double> ours;
  std::vector<double> batch;
  std::vector<double> clipwise;
};

Times measure(const std::vector<std::vector<float>>& clips, int64_t bands, int64_t threads,
              bench::PeerProcess* peer) {
  const LogMel log_mel(bands);
  Times times;
  for (int round = -kWarmUpRounds; round < kRounds; ++round) {
    const double ours = our_round(log_mel, clips, threads);
    const auto ask = [&](const char* way) {
      return peer ? std::stod(peer->ask(fmt::format("{} {}", way, bands))) : 0.0;
    };
    const double batch = ask("batch"), clipwise = ask("clipwise");
    if (round < 0) continue;
    times.ours.push_back(ours);
    times.batch.push_back(batch);
    times.clipwise.push_back(clipwise);
  }
  return times;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

Json report(const Times& times, int64_t bands, int64_t threads, bool with_peer) {
  Json line = Json::object();
  line["bench"] = "log_mel";
  line["hardware"] = processor_name();
  line["commit"] = commit();
  line["bands"] = bands;
  line["threads"] = threads;
  line["ours_ms"] = 1e3 * quantile(times.ours, 0.5);
  if (!with_peer) return line;
  const double batch = quantile(times.batch, 0.5), clipwise = quantile(times.clipwise, 0.5);
  const std::vector<double>& faster = batch < clipwise ? times.batch : times.clipwise;
  std::vector<double> ratios;
  for (size_t i = 0; i < faster.size(); ++i) ratios.push_back(faster[i] / times.ours[i]);
  line["torchaudio_batch_ms"] = 1e3 * batch;
  line["torchaudio_clipwise_ms"] = 1e3 * clipwise;
  line["ratio_to_faster"] = quantile(ratios, 0.5);
  line["ratio_10_percent"] = quantile(ratios, 0.1);
  line["ratio_90_percent"] = quantile(ratios, 0.9);
  line["rounds"] = kRounds;
  return line;
}

int run(const std::vector<std::string>& words) {
  int64_t threads = 1;
  std::string command;
  for (size_t i = 0; i < words.size(); i += 2) {
    const bool has_value = i + 1 < words.size();
    if (has_value && words[i] == "--threads")
      threads = std::max<int64_t>(1, std::atoll(words[i + 1].c_str()));
    else if (has_value && words[i] == "--peer")
      command = words[i + 1];
    else
      fail(ErrorKind::kUsage, "usage: bench_log_mel [--threads N] [--peer COMMAND]");
  }
  const auto clips = make_clips();
  std::unique_ptr<bench::PeerProcess> peer;
  if (!command.empty()) peer = std::make_unique<bench::PeerProcess>(fmt::format("{} {}", command, threads));
  for (const int64_t bands : {80, 128})
    fmt::print("{}\n",
               report(measure(clips, bands, threads, peer.get()), bands, threads, peer != nullptr).dump());
  return 0;
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  try {
    return fathom::run({argv + 1, argv + argc});
  } catch (const fathom::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return fathom::exit_status(error.kind());
  }
}
