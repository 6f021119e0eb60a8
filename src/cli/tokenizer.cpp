// fathom tokenizer train | encode | decode
#include <charconv>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/utf8.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/trainer.h"

namespace fathom::cli {
namespace {

struct TokenizerTrainOptions {
  std::vector<std::string> files;
  std::string out;
  TokenizerTrainerConfig config;
};

struct FilterOptions {
  std::string tokenizer;
  bool special = false;
  bool skip_special = false;
  bool lines = false;
  bool json_lines = false;
};

std::string read_standard_input() {
  std::string text;
  char block[1 << 16];
  while (const size_t count = std::fread(block, 1, sizeof block, stdin)) text.append(block, count);
  if (std::ferror(stdin)) fail(ErrorKind::kData, "cannot read standard input");
  return text;
}

void write_standard_output(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    fail(ErrorKind::kData, "cannot write to standard output");
}

/// Hands `take` each line of standard input without its end; a last line without end counts too.
void for_each_input_line(const std::function<void(const std::string&)>& take) {
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) take(line);
}

std::string ids_line(std::span<const int32_t> ids) {
  std::string line;
  for (const int32_t id : ids) line.append(line.empty() ? "" : " ").append(std::to_string(id));
  return line + "\n";
}

std::vector<int32_t> parse_ids(std::string_view text) {
  std::vector<int32_t> ids;
  constexpr std::string_view kSpaces = " \t\r\n";
  for (size_t at = text.find_first_not_of(kSpaces); at != std::string_view::npos;
       at = text.find_first_not_of(kSpaces, at)) {
    const std::string_view word = text.substr(at, text.find_first_of(kSpaces, at) - at);
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size())
      fail(ErrorKind::kRequest, "\"{}\" on standard input is not an id", word);
    ids.push_back(id);
    at += word.size();
  }
  return ids;
}

/// One bar for counting, one for merging.
class TrainingBars {
 public:
  void show(const TokenizerTrainingProgress& now) {
    if (!bar_ || now.phase != phase_) {
      phase_ = now.phase;
      const bool counting = phase_ == TokenizerTrainingProgress::Phase::kCounting;
      bar_.reset();
      bar_ = std::make_unique<Progress>(counting ? "counting words (bytes)" : "merging (ids)", now.total);
    }
    bar_->update(now.done);
  }

 private:
  std::unique_ptr<Progress> bar_;
  TokenizerTrainingProgress::Phase phase_{};
};

void train_vocabulary(const TokenizerTrainOptions& options) {
  options.config.validate();
  std::vector<MappedFile> files;
  std::vector<std::string_view> texts;
  for (const std::string& path : options.files) {
    texts.push_back(files.emplace_back(path).text());
    if (const auto offset = find_invalid_utf8(texts.back()))
      fail(ErrorKind::kData, "{}: byte {} of the file is not valid UTF-8", path, *offset + 1);
  }
  auto bars = std::make_unique<TrainingBars>();
  const Tokenizer tokenizer = train_tokenizer(
      texts, options.config, [&](const TokenizerTrainingProgress& progress) { bars->show(progress); });
  bars.reset();
  tokenizer.save(options.out);
  log::info("{}: {} ids", options.out, tokenizer.vocab_size());
}

void run_encode(const FilterOptions& options) {
  const Tokenizer tokenizer = Tokenizer::from_file(options.tokenizer);
  const auto print = [&](std::string_view text) {
    write_standard_output(ids_line(tokenizer.encode(text, options.special)));
  };
  if (options.json_lines) {
    int64_t number = 0;
    for_each_input_line([&](const std::string& line) {
      const Json text = parse_json(line, fmt::format("standard input: line {}", ++number));
      if (!text.is_string())
        fail(ErrorKind::kData, "standard input: line {}: expected a JSON string, got {}", number,
             text.kind_name());
      print(text.as_string());
    });
  } else if (options.lines) {
    for_each_input_line(print);
  } else {
    print(read_standard_input());
  }
}

void run_decode(const FilterOptions& options) {
  const Tokenizer tokenizer = Tokenizer::from_file(options.tokenizer);
  const auto text_of = [&](std::string_view ids) {
    return tokenizer.decode(parse_ids(ids), options.skip_special);
  };
  if (options.lines) {
    for_each_input_line([&](const std::string& line) { write_standard_output(text_of(line) + "\n"); });
  } else {
    write_standard_output(text_of(read_standard_input()));
  }
}

void add_train(CLI::App& app, TokenizerTrainOptions& options) {
  const std::map<std::string, SplitterKind> splitters = {
      {"gpt2", SplitterKind::kGpt2}, {"llama3", SplitterKind::kLlama3}, {"clip", SplitterKind::kClip}};
  TokenizerTrainerConfig& config = options.config;
  CLI::App* verb = app.add_subcommand("train", "learn a vocabulary from text files");
  verb->add_option("files", options.files, "UTF-8 text; special tokens in it separate documents")->required();
  verb->add_option("--vocab", config.vocab_size, "number of ids, special tokens and 256 bytes included")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->required();
  verb->add_option("--out", options.out, "tokenizer.json to write")->required()->check(in_a_folder());
  verb->add_option("--splitter", config.splitter, "how text is cut into words (default gpt2)")
      ->transform(CLI::CheckedTransformer(splitters).description("gpt2|llama3|clip"));
  verb->add_option("--special", config.special_tokens, "special tokens, which get the first ids")
      ->capture_default_str();
  verb->add_option("--min-frequency", config.min_frequency, "pairs that occur less often are not merged")
      ->capture_default_str();
  verb->add_option("--threads", config.num_threads, "threads that count words; 0: all")
      ->capture_default_str();
  verb->callback([&options] { train_vocabulary(options); });
}

void add_filters(CLI::App& app, FilterOptions& options) {
  CLI::App* encode = app.add_subcommand("encode", "text on standard input to ids, separated by spaces");
  encode->add_option("--tokenizer", options.tokenizer, "tokenizer.json")->required();
  encode->add_flag("--special", options.special, "recognise special tokens written in the text");
  encode->add_flag("--lines", options.lines,
                   "a line of ids for every line, which is encoded without its end");
  encode->add_flag("--json-lines", options.json_lines, "every line of the input is a JSON string")
      ->excludes("--lines");
  encode->callback([&options] { run_encode(options); });

  CLI::App* decode = app.add_subcommand("decode", "ids on standard input to text, exactly as it was encoded");
  decode->add_option("--tokenizer", options.tokenizer, "tokenizer.json")->required();
  decode->add_flag("--skip-special", options.skip_special, "leave special tokens out");
  decode->add_flag("--lines", options.lines, "a line of text for every line of ids");
  decode->callback([&options] { run_decode(options); });
}

}  // namespace

int run_tokenizer(int argc, const char* const* argv) {
  VerbApp app("tokenizer", "Train a byte-level BPE tokenizer, or use one as a filter");
  app.require_subcommand(1);
  TokenizerTrainOptions train;
  FilterOptions filter;
  add_train(app, train);
  add_filters(app, filter);
  parse_options(app, argc, argv);
  return 0;
}

}  // namespace fathom::cli
