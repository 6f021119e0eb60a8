// WebDataset: tar shards in which consecutive files of one base name are one sample. Only names and texts are
// read here; a picture or recording is read from its place in the shard when it is needed, so that samples
// can be had in any order. Format: https://github.com/webdataset/webdataset
#include <algorithm>
#include <cctype>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "data/media_file.h"
#include "data/readers/reading.h"
#include "data/readers/record_builder.h"
#include "data/readers/shard_names.h"
#include "data/readers/tar.h"
#include "data/readers/text_lines.h"

namespace fathom {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{16} << 20;

/// "a/b.c/0001.seg.PNG" is the file "seg.png" of sample "a/b.c/0001".
struct MemberName {
  std::string sample;
  std::string kind;
};

MemberName split_name(const std::string& name) {
  const size_t slash = name.rfind('/');
  const size_t start = slash == std::string::npos ? 0 : slash + 1;
  const size_t dot = name.find('.', start);
  if (dot == std::string::npos || dot == start) return {name, ""};
  std::string kind = name.substr(dot + 1);
  std::transform(kind.begin(), kind.end(), kind.begin(), [](unsigned char c) { return std::tolower(c); });
  return {name.substr(0, dot), kind};
}

bool one_of(std::string_view kind, std::initializer_list<std::string_view> kinds) {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

/// Builds the records of one shard.
class ShardReader {
 public:
  ShardReader(Reading& reading, const RecordBuilder& builder, const std::string& path)
      : reading_(reading), builder_(builder), file_(path), path_(path) {}

  void read() {
    TarReader tar(file_.bytes(), "");
    bool going_on = true;
    while (going_on && !reading_.full()) {
      std::optional<TarMember> member;
      reading_.attempt(path_, [&] {
        member = tar.next();
        going_on = member.has_value();
      });
      if (member) take(*member);
    }
    // Behind an error that ends the archive lie, as far as anyone knows, more files of the open sample.
    if (tar.is_complete()) finish();
  }

 private:
  void take(const TarMember& member) {
    const MemberName name = split_name(member.name);
    if (name.kind.empty()) return;
    if (name.sample != sample_) finish();
    sample_ = name.sample;
    if (reason_.empty()) {
      // The reason belongs to the sample, which is told of when it is complete.
      try {
        add(name.kind, member);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kData) throw;
        const std::string what = error.what();  // of JSON, it begins with ":LINE:COLUMN"
        reason_ = member.name + (what.starts_with(':') ? "" : ": ") + what;
      }
    }
  }

  void add(const std::string& kind, const TarMember& member) {
    if (!kinds_.insert(kind).second) fail(ErrorKind::kData, "is there twice");
    if (one_of(kind, {"jpg", "jpeg", "png", "webp"})) {
      if (!record_.image_path.empty()) fail(ErrorKind::kData, "a second picture");
      record_.image_path = archive_part(path_, member.offset, member.bytes, member.name);
    } else if (one_of(kind, {"wav", "flac", "ogg", "mp3"})) {
      if (!record_.audio_path.empty()) fail(ErrorKind::kData, "a second recording");
      record_.audio_path = archive_part(path_, member.offset, member.bytes, member.name);
    } else if (one_of(kind, {"txt", "caption"})) {
      add_caption(text_of(member));
    } else if (kind == "cls") {
      record_.label = std::string(trimmed(text_of(member)));
    } else if (kind == "json") {
      add_json(text_of(member));
    }
  }

  void add_caption(std::string_view text) {
    if (const auto caption = trimmed(text); !caption.empty()) record_.captions.emplace_back(caption);
  }

  /// Paths in it lead nowhere from inside a shard: they are tags.
  void add_json(std::string_view text) {
    const Json json = parse_json(text, "");
    if (!json.is_object()) fail(ErrorKind::kData, "expected an object, got {}", json.kind_name());
    for (const auto& [key, value] : json.as_object()) {
      if (key == "image" || key == "audio")
        record_.tags[key] = value.is_string() ? value.as_string() : value.dump();
      else
        builder_.add(record_, key, value);
    }
  }

  std::string_view text_of(const TarMember& member) const {
    if (member.bytes > kMaxTextBytes)
      fail(ErrorKind::kData, "{} bytes of text, at most {} are accepted", member.bytes, kMaxTextBytes);
    const std::string_view text =
        file_.text().substr(static_cast<size_t>(member.offset), static_cast<size_t>(member.bytes));
    if (const auto offset = find_invalid_utf8(text))
      fail(ErrorKind::kData, "byte {}: not valid UTF-8", *offset + 1);
    return skip_byte_order_mark(text);
  }

  /// Hands the sample over that has come to its end.
  void finish() {
    if (kinds_.empty()) return;
    Record record = std::exchange(record_, {});
    const std::string reason = std::exchange(reason_, "");
    const std::string source = path_ + ": " + std::exchange(sample_, "");
    kinds_.clear();
    reading_.attempt(source, [&] {
      if (!reason.empty()) fail(ErrorKind::kData, "{}", reason);
      if (record.id.empty()) record.id = source.substr(path_.size() + 2);
      // A sentence alone is a text.
      const bool has_media = !record.image_path.empty() || !record.audio_path.empty();
      if (!has_media && record.captions.size() == 1 && record.text.empty() && record.question.empty())
        record.text = std::exchange(record.captions, {}).front();
      if (const std::string problem = builder_.finish(record, source); !problem.empty())
        fail(ErrorKind::kData, "no picture, recording or text");
      const auto split = record.tags.extract("split");
      reading_.accept(std::move(record), split ? split.mapped() : "");
    });
  }

  Reading& reading_;
  const RecordBuilder& builder_;
  MappedFile file_;
  std::string path_;
  std::string sample_;
  std::set<std::string> kinds_;  ///< of the sample's files so far
  Record record_;
  std::string reason_;  ///< what is wrong with the sample, or empty
};

}  // namespace

void read_webdataset(Reading& reading) {
  const RecordBuilder builder("", reading.config().columns);
  for (const std::string& shard : find_shards(reading.path())) {
    if (reading.full()) return;
    ShardReader(reading, builder, shard).read();
  }
}

}  // namespace fathom
