#include "data/tokenizer/encoder.h"

#include <array>
#include <string>
#include <utility>
#include <variant>

namespace fathom {
namespace {

/// Tokens searched for before the normalizer, or after it and then in normalized form.
std::vector<AddedToken> tokens_of_stage(const TokenizerSpec& spec, const Normalizer& normalizer,
                                        bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : spec.added) {
    if (token.normalized != normalized) continue;
    if (normalized) token.text = normalizer.apply(token.text);
    if (!token.text.empty()) tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

/// Collects ids in a small block before they go to the vector, so that the loop over words writes without
/// checks.
class Encoder::IdSink {
 public:
  explicit IdSink(std::vector<int32_t>& out) : out_(out) {}
  ~IdSink() { flush(); }
  IdSink(const IdSink&) = delete;
  IdSink& operator=(const IdSink&) = delete;

  /// Room for WordCache::kMaxIds ids; `advance` says how many were written.
  int32_t* room() { return block_.data() + count_; }
  void advance(size_t count) {
    count_ += count;
    if (count_ > kBlock) [[unlikely]]
      flush();
  }
  void append(std::span<const int32_t> ids) {
    flush();
    out_.insert(out_.end(), ids.begin(), ids.end());
  }

 private:
  void flush() {
    out_.insert(out_.end(), block_.begin(), block_.begin() + static_cast<std::ptrdiff_t>(count_));
    count_ = 0;
  }

  static constexpr size_t kBlock = 1024;
  std::vector<int32_t>& out_;
  std::array<int32_t, kBlock + WordCache::kMaxIds> block_;
  size_t count_ = 0;
};

/// Lends a workspace for the length of a call.
struct Encoder::Lease {
  explicit Lease(const Encoder& from) : encoder(from), workspace(from.borrow()) {}
  ~Lease() {
    workspace->merger.release_excess();
    const std::lock_guard lock(encoder.idle_mutex_);
    encoder.idle_.push_back(std::move(workspace));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  const Encoder& encoder;
  std::unique_ptr<Workspace> workspace;
};

Encoder::Encoder(const TokenizerSpec& spec)
    : normalizer_(spec.normalizer),
      pre_tokenizer_(spec.pre_tokenizer),
      raw_tokens_(tokens_of_stage(spec, normalizer_, false)),
      normalized_tokens_(tokens_of_stage(spec, normalizer_, true)),
      model_(spec, pre_tokenizer_.byte_level()) {}

std::unique_ptr<Encoder::Workspace> Encoder::borrow() const {
  {
    const std::lock_guard lock(idle_mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Workspace> workspace = std::move(idle_.back());
      idle_.pop_back();
      return workspace;
    }
  }
  return std::make_unique<Workspace>(model_.merges());
}

void Encoder::encode(std::string_view text, bool with_special, std::vector<int32_t>& out) const {
  const Lease lease(*this);
  IdSink sink(out);
  encode_raw(text, with_special, *lease.workspace, sink);
}

void Encoder::encode_raw(std::string_view text, bool with_special, Workspace& workspace, IdSink& sink) const {
  for (size_t at = 0; at < text.size();) {
    const AddedTokenMatcher::Match match = raw_tokens_.find(text, at, with_special);
    const std::string_view segment = text.substr(at, match.begin - at);
    if (normalizer_.empty())
      encode_normalized(segment, with_special, at == 0, workspace, sink);
    else
      encode_normalized(normalizer_.apply(segment), with_special, at == 0, workspace, sink);
    if (match.id >= 0) sink.append({&match.id, 1});
    at = match.end;
  }
}

void Encoder::encode_normalized(std::string_view text, bool with_special, bool at_start, Workspace& workspace,
                                IdSink& sink) const {
  for (size_t at = 0; at < text.size();) {
    const AddedTokenMatcher::Match match = normalized_tokens_.find(text, at, with_special);
    encode_segment(text.substr(at, match.begin - at), at_start && at == 0, workspace, sink);
    if (match.id >= 0) sink.append({&match.id, 1});
    at = match.end;
  }
}

void Encoder::encode_segment(std::string_view segment, bool at_start, Workspace& workspace,
                             IdSink& sink) const {
  if (segment.empty()) return;
  const PreTokenizer::Scanner* scanner = pre_tokenizer_.scanner();
  if (!scanner) {
    for (const std::string& piece : pre_tokenizer_.split(segment, at_start))
      encode_scanned(scan::Whole{}, piece, workspace, sink);
    return;
  }
  const bool needs_space = pre_tokenizer_.adds_prefix_space() && !segment.starts_with(' ');
  const std::string prefixed = needs_space ? " " + std::string(segment) : std::string();
  std::visit([&](const auto& s) { encode_scanned(s, needs_space ? prefixed : segment, workspace, sink); },
             *scanner);
}

template <typename Scanner>
void Encoder::encode_scanned(const Scanner& scanner, std::string_view segment, Workspace& workspace,
                             IdSink& sink) const {
  constexpr size_t kBatch =
      32;  // words probed before the first is found: enough to hide the waits for memory
  std::array<WordCache::Probe, kBatch> probes;
  size_t count = 0;
  const char* const end = segment.data() + segment.size();
  const auto resolve = [&] {
    for (size_t i = 0; i < count; ++i) {
      const size_t num_ids = workspace.cache.find(probes[i], sink.room());
      if (num_ids > 0) [[likely]]
        sink.advance(num_ids);
      else
        encode_new_word(probes[i].word(), end, workspace, sink);
    }
    count = 0;
  };
  scan::for_each_piece(scanner, segment, [&](std::string_view word) {
    probes[count++] = workspace.cache.probe(word, end);
    if (count == kBatch) resolve();
  });
  resolve();
}

void Encoder::encode_new_word(std::string_view word, const char* text_end, Workspace& workspace,
                              IdSink& sink) const {
  const std::span<const int32_t> ids = model_.encode_word(word, workspace.merger);
  workspace.cache.insert(word, text_end, ids);
  sink.append(ids);
}

}  // namespace fathom
