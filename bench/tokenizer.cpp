// How fast is text turned into ids on one thread, and how fast is a vocabulary trained?
//
//   bench_tokenizer gpt2-vocab.bpe gutenberg-train.txt movie-reviews-train.txt us-speeches-train.txt
//       --peer "python bench/peers/tokenizer.py"
//
// Encoding: GPT-2's vocabulary, the files joined, CPU seconds of one thread; "cold" is a tokenizer that has
// not encoded anything yet. The peer is tiktoken. Training: 8,192 ids from the same files, wall seconds on
// all cores; the peer is the `tokenizers` package. With a peer, rounds alternate. One JSON line for each
// question.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/version.h"
#include "data/tokenizer/spec.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/trainer.h"
#include "peer_process.h"

namespace fathom {
namespace {

constexpr int kEncodeRounds = 11;
constexpr int kTrainRounds = 5;

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

/// Seconds of ours and of the peer, round by round.
struct Rounds {
  std::vector<double> ours, peer;

  void add_to(Json& line) const {
    std::vector<double> ratios;
    for (size_t i = 0; i < peer.size(); ++i) ratios.push_back(peer[i] / ours[i]);
    if (ratios.empty()) return;
    line["ratio"] = median(ratios);
    line["ratio_lowest"] = *std::min_element(ratios.begin(), ratios.end());
    line["ratio_highest"] = *std::max_element(ratios.begin(), ratios.end());
    line["rounds"] = static_cast<int64_t>(ratios.size());
  }
};

Json new_line(const char* question, size_t num_bytes) {
  Json line;
  line["bench"] = question;
  line["hardware"] = processor_name();
  line["commit"] = commit();
  line["megabytes"] = static_cast<double>(num_bytes) * 1e-6;
  return line;
}

double encode_round(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  const double start = cpu_seconds();
  tokenizer.encode(text, ids);
  return cpu_seconds() - start;
}

void bench_encode(const std::string& merges, const std::string& text, bench::PeerProcess* peer) {
  Rounds warm, cold;
  for (int round = -1; round < kEncodeRounds; ++round) {
    const Tokenizer tokenizer(gpt2_spec(merges));
    const double cold_seconds = encode_round(tokenizer, text);
    const double warm_seconds = encode_round(tokenizer, text);
    const double peer_seconds = peer ? std::stod(peer->ask("encode")) : 0;
    if (round < 0) continue;
    cold.ours.push_back(cold_seconds);
    warm.ours.push_back(warm_seconds);
    if (peer) cold.peer.push_back(peer_seconds), warm.peer.push_back(peer_seconds);
  }
  for (const auto& [name, rounds] :
       {std::pair("tokenizer_encode", &warm), std::pair("tokenizer_encode_cold", &cold)}) {
    Json line = new_line(name, text.size());
    line["ours_megabytes_per_cpu_second"] = static_cast<double>(text.size()) * 1e-6 / median(rounds->ours);
    if (peer)
      line["tiktoken_megabytes_per_cpu_second"] =
          static_cast<double>(text.size()) * 1e-6 / median(rounds->peer);
    rounds->add_to(line);
    fmt::print("{}\n", line.dump());
  }
}

void bench_train(const std::vector<std::string>& texts, size_t num_bytes, bench::PeerProcess* peer) {
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  Rounds rounds;
  for (int round = 0; round < kTrainRounds; ++round) {
    const double start = wall_seconds();
    train_tokenizer(views, {.vocab_size = 8192});
    rounds.ours.push_back(wall_seconds() - start);
    if (peer) rounds.peer.push_back(std::stod(peer->ask("train")));
  }
  Json line = new_line("tokenizer_train", num_bytes);
  line["ours_seconds"] = median(rounds.ours);
  if (peer) line["tokenizers_seconds"] = median(rounds.peer);
  rounds.add_to(line);
  fmt::print("{}\n", line.dump());
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  using namespace fathom;
  const std::vector<std::string> words(argv + 1, argv + argc);
  const bool has_peer = words.size() > 2 && words[words.size() - 2] == "--peer";
  const size_t num_paths = words.size() - (has_peer ? 2 : 0);
  if (num_paths < 2) {
    fmt::print(stderr, "usage: bench_tokenizer GPT2_MERGES FILE… [--peer COMMAND]\n");
    return 2;
  }
  try {
    std::string text, command = words.back();
    std::vector<std::string> texts;
    for (size_t i = 0; i < num_paths; ++i) command += " '" + words[i] + "'";
    for (size_t i = 1; i < num_paths; ++i) text += texts.emplace_back(read_file(words[i]));
    std::unique_ptr<bench::PeerProcess> peer;
    if (has_peer) peer = std::make_unique<bench::PeerProcess>(command);
    bench_encode(read_file(words[0]), text, peer.get());
    bench_train(texts, text.size(), peer.get());
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_status(error.kind());
  }
}
