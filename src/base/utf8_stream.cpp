#include "base/utf8_stream.h"

#include "base/utf8.h"

namespace fathom {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string text;
  size_t done = 0;
  while (done < pending_.size()) {
    const Utf8Sequence sequence =
        first_utf8_sequence(pending_.data() + done, pending_.data() + pending_.size());
    if (sequence.state == Utf8Sequence::kUnfinished) break;
    const auto size = static_cast<size_t>(sequence.size);
    text += sequence.state == Utf8Sequence::kCharacter ? std::string_view(pending_).substr(done, size)
                                                       : kReplacement;
    done += size;
  }
  pending_.erase(0, done);
  return text;
}

std::string Utf8Stream::finish() {
  const bool unfinished = !pending_.empty();
  pending_.clear();
  return std::string(unfinished ? kReplacement : "");
}

}  // namespace fathom
