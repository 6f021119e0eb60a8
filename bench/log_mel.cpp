// How long do 64 clips of 30 seconds take to become Whisper's log-mel spectrograms?
//
//   bench_log_mel [--threads N] [--peer "python bench/peers/log_mel.py"]
//
// Clips are noise in memory at 16 kHz. With a peer, rounds alternate: ours (a clip a thread at a time),
// torchaudio on all clips as one batch, torchaudio clip by clip; both on N threads. Seconds are wall-clock
// seconds, so measure on a quiet machine. One JSON line for each number of bands.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/random.h"
#include "data/audio/log_mel.h"
#include "measure/peer_process.h"
#include "measure/result.h"

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
  const double start = bench::wall_seconds();
  parallel_for_each(kClips, threads, [&](int64_t i) {
    results[static_cast<size_t>(i)] = log_mel.compute(clips[static_cast<size_t>(i)]);
  });
  return bench::wall_seconds() - start;
}

using Times = std::map<std::string, std::vector<double>>;

/// Seconds of "ours" and, with a peer, of its two ways.
Times measure(const std::vector<std::vector<float>>& clips, int64_t bands, int64_t threads,
              bench::PeerProcess* peer) {
  const LogMel log_mel(bands);
  std::vector<bench::Contender> contenders = {{"ours", [&] { return our_round(log_mel, clips, threads); }}};
  for (const char* way : {"batch", "clipwise"})
    if (peer != nullptr)
      contenders.push_back({way, [=] { return std::stod(peer->ask(fmt::format("{} {}", way, bands))); }});
  return bench::take_turns(contenders, {.warm_up = kWarmUpRounds, .counted = kRounds});
}

Json report(const Times& times, int64_t bands, int64_t threads, bool with_peer) {
  Json line = bench::new_line("log_mel", bench::processor_name());
  line["bands"] = bands;
  line["threads"] = threads;
  line["ours_ms"] = 1e3 * bench::median(times.at("ours"));
  if (!with_peer) return line;
  const double batch = bench::median(times.at("batch")), clipwise = bench::median(times.at("clipwise"));
  line["torchaudio_batch_ms"] = 1e3 * batch;
  line["torchaudio_clipwise_ms"] = 1e3 * clipwise;
  const std::string faster = batch < clipwise ? "batch" : "clipwise";
  bench::add_spread(line, "ratio", bench::ratios(times.at(faster), times.at("ours")));
  line["faster"] = faster;
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
    bench::print_line(report(measure(clips, bands, threads, peer.get()), bands, threads, peer != nullptr));
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
