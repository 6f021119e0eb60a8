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

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "data/tokenizer/spec.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/trainer.h"
#include "measure/peer_process.h"
#include "measure/result.h"

namespace fathom {
namespace {

constexpr int kEncodeRounds = 11;
constexpr int kTrainRounds = 5;

Json new_line(const char* question, size_t num_bytes) {
  Json line = bench::new_line(question, bench::processor_name());
  line["megabytes"] = static_cast<double>(num_bytes) * 1e-6;
  return line;
}

void add_ratio(Json& line, const std::vector<double>& peer, const std::vector<double>& ours) {
  bench::add_spread(line, "ratio", bench::ratios(peer, ours));
  line["rounds"] = static_cast<int64_t>(ours.size());
}

double encode_round(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  const double start = bench::cpu_seconds();
  tokenizer.encode(text, ids);
  return bench::cpu_seconds() - start;
}

void bench_encode(const std::string& merges, const std::string& text, bench::PeerProcess* peer) {
  std::optional<Tokenizer> tokenizer;
  std::vector<bench::Contender> contenders = {{"_cold",
                                               [&] {
                                                 tokenizer.emplace(gpt2_spec(merges));
                                                 return encode_round(*tokenizer, text);
                                               }},
                                              {"", [&] { return encode_round(*tokenizer, text); }}};
  if (peer != nullptr) contenders.push_back({"peer", [&] { return std::stod(peer->ask("encode")); }});
  const auto times = bench::take_turns(contenders, {.counted = kEncodeRounds});
  const double megabytes = static_cast<double>(text.size()) * 1e-6;
  for (const std::string kind : {"", "_cold"}) {
    Json line = new_line(("tokenizer_encode" + kind).c_str(), text.size());
    line["ours_megabytes_per_cpu_second"] = megabytes / bench::median(times.at(kind));
    if (peer != nullptr) {
      line["tiktoken_megabytes_per_cpu_second"] = megabytes / bench::median(times.at("peer"));
      add_ratio(line, times.at("peer"), times.at(kind));
    }
    bench::print_line(line);
  }
}

void bench_train(const std::vector<std::string>& texts, size_t num_bytes, bench::PeerProcess* peer) {
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  std::vector<bench::Contender> contenders = {{"ours", [&] {
                                                 const double start = bench::wall_seconds();
                                                 train_tokenizer(views, {.vocab_size = 8192});
                                                 return bench::wall_seconds() - start;
                                               }}};
  if (peer != nullptr) contenders.push_back({"peer", [&] { return std::stod(peer->ask("train")); }});
  const auto times = bench::take_turns(contenders, {.warm_up = 0, .counted = kTrainRounds});
  Json line = new_line("tokenizer_train", num_bytes);
  line["ours_seconds"] = bench::median(times.at("ours"));
  if (peer != nullptr) {
    line["tokenizers_seconds"] = bench::median(times.at("peer"));
    add_ratio(line, times.at("peer"), times.at("ours"));
  }
  bench::print_line(line);
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
