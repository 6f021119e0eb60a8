#include "data/readers/token_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/utf8.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

/// The first bytes of a cache; int32 ids follow. Little-endian, as every machine we run on.
struct Header {
  std::array<char, 8> magic{'F', 'A', 'T', 'H', 'T', 'O', 'K', '1'};
  uint64_t key = 0;
  int64_t num_tokens = 0;
  int64_t num_documents = 0;
  int64_t text_bytes = 0;
};
static_assert(sizeof(Header) == 40);

std::optional<Header> read_header(std::span<const std::byte> bytes) {
  Header header;
  if (bytes.size() < sizeof(Header)) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof(Header));
  const bool fits = header.num_tokens >= 0 && (bytes.size() - sizeof(Header)) / sizeof(int32_t) ==
                                                  static_cast<uint64_t>(header.num_tokens);
  if (header.magic != Header{}.magic || !fits) return std::nullopt;
  return header;
}

bool holds(const std::string& path, uint64_t key) {
  if (!fs::is_regular_file(path)) return false;
  const MappedFile file(path);
  const auto header = read_header(file.bytes());
  return header && header->key == key;
}

void check_utf8(std::string_view text, const std::string& path) {
  const auto offset = find_invalid_utf8(text);
  if (!offset) return;
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(*offset), '\n');
  fail(ErrorKind::kData, "{}:{}: byte {} of the file is not valid UTF-8", path, line, *offset + 1);
}

/// Where the next separator line begins and ends (its line end included); both `text.size()` when there is
/// none.
struct SeparatorLine {
  size_t begin;
  size_t end;
};
SeparatorLine find_separator(std::string_view text, size_t from) {
  const std::string_view separator = TokenFile::kSeparator;
  for (size_t begin = text.find(separator, from); begin != std::string_view::npos;
       begin = text.find(separator, begin + 1)) {
    const std::string_view rest = text.substr(begin + separator.size());
    const size_t line_end = rest.empty()               ? 0
                            : rest.starts_with('\n')   ? 1
                            : rest.starts_with("\r\n") ? 2
                                                       : SIZE_MAX;
    if (line_end != SIZE_MAX && (begin == 0 || text[begin - 1] == '\n'))
      return {begin, begin + separator.size() + line_end};
  }
  return {text.size(), text.size()};
}

/// Writes ids as they come, so that a text need not fit in memory as ids.
class CacheWriter {
 public:
  explicit CacheWriter(std::string path)
      : path_(std::move(path)), out_(path_, std::ios::binary | std::ios::trunc) {
    put(&header_, sizeof(Header));
  }
  ~CacheWriter() {
    if (!finished_) ::unlink(path_.c_str());
  }
  CacheWriter(const CacheWriter&) = delete;
  CacheWriter& operator=(const CacheWriter&) = delete;

  void write(const std::vector<int32_t>& tokens) {
    header_.num_tokens += static_cast<int64_t>(tokens.size());
    put(tokens.data(), tokens.size() * sizeof(int32_t));
  }
  void count_document() { ++header_.num_documents; }

  void finish(uint64_t key, int64_t text_bytes, const std::string& final_path) {
    header_.key = key;
    header_.text_bytes = text_bytes;
    out_.seekp(0);
    put(&header_, sizeof(Header));
    out_.close();
    if (!out_) fail_write();
    sync_path(path_);
    fs::rename(path_, final_path);
    finished_ = true;
  }

 private:
  void put(const void* data, size_t size) {
    if (!out_.write(static_cast<const char*>(data), static_cast<std::streamsize>(size))) fail_write();
  }
  [[noreturn]] void fail_write() {
    fail(ErrorKind::kData, "{}: cannot write the token cache: {} (set FATHOM_CACHE to a folder with room)",
         path_, std::strerror(errno));
  }

  std::string path_;
  std::ofstream out_;
  Header header_;
  bool finished_ = false;
};

void encode_documents(std::string_view text, const std::string& path, const Tokenizer& tokenizer,
                      CacheWriter& writer) {
  std::vector<int32_t> tokens;
  for (size_t place = 0; place < text.size();) {
    const SeparatorLine separator = find_separator(text, place);
    tokens.clear();
    if (separator.begin > place) {
      tokenizer.encode(text.substr(place, separator.begin - place), tokens);
      writer.count_document();
    }
    if (separator.end > separator.begin) {
      const auto end_of_text = tokenizer.end_of_text();
      if (!end_of_text)
        fail(ErrorKind::kData, "{}: has separator lines {}, but the tokenizer has no end-of-text token", path,
             TokenFile::kSeparator);
      tokens.push_back(*end_of_text);
    }
    writer.write(tokens);
    place = separator.end;
  }
}

/// Another name for each process and thread that may be writing the same cache.
std::string temporary_name(const std::string& path) {
  return fmt::format("{}.{}.{}.tmp", path, ::getpid(), ::gettid());
}

/// A process that was killed leaves its half cache; what nobody has written to for a day is such a one.
void remove_abandoned(const std::string& folder) {
  constexpr std::chrono::hours kAbandoned{24};
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool is_ours = name.ends_with(".tmp") && name.find(".tokens.") != std::string::npos;
    if (!is_ours) continue;
    const auto written = entry.last_write_time(ignored);
    if (!ignored && fs::file_time_type::clock::now() - written > kAbandoned)
      fs::remove(entry.path(), ignored);
  }
}

void make_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    fail(ErrorKind::kData, "{}: cannot make the cache folder: {} (set FATHOM_CACHE to another)", folder,
         error.message());
}

}  // namespace

std::string default_cache_folder() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  if (const std::string folder = variable("FATHOM_CACHE"); !folder.empty()) return folder;
  if (const std::string folder = variable("XDG_CACHE_HOME"); !folder.empty()) return folder + "/fathom";
  if (const std::string home = variable("HOME"); !home.empty()) return home + "/.cache/fathom";
  return (fs::temp_directory_path() / "fathom-cache").string();
}

TokenFile::TokenFile(std::string text_path, MappedFile file)
    : text_path_(std::move(text_path)), file_(std::move(file)) {
  const auto header = read_header(file_.bytes());
  if (!header) fail(ErrorKind::kData, "{}: not a token cache", file_.path());
  text_bytes_ = header->text_bytes;
  num_documents_ = header->num_documents;
  const std::byte* first = file_.bytes().data() + sizeof(Header);
  tokens_ = {reinterpret_cast<const int32_t*>(first), static_cast<size_t>(header->num_tokens)};
}

TokenFile TokenFile::open(const std::string& text_path, const Tokenizer& tokenizer,
                          const std::string& cache_folder) {
  const MappedFile text(text_path);
  const std::string tokenizer_json = tokenizer.to_json();
  const uint64_t key =
      mix_seed({checksum64(text.bytes()), checksum64(std::as_bytes(std::span(tokenizer_json)))});
  const std::string folder = cache_folder.empty() ? default_cache_folder() : cache_folder;
  make_folder(folder);
  const std::string path =
      fmt::format("{}/{}-{:016x}.tokens", folder, fs::path(text_path).stem().string(), key);
  if (!holds(path, key)) {
    log::info("encoding {} ({:.1f} MB)", text_path, static_cast<double>(text.text().size()) / 1e6);
    check_utf8(text.text(), text_path);
    remove_abandoned(folder);
    CacheWriter writer(temporary_name(path));
    encode_documents(text.text(), text_path, tokenizer, writer);
    writer.finish(key, static_cast<int64_t>(text.text().size()), path);
  }
  return TokenFile(text_path, MappedFile(path));
}

}  // namespace fathom
