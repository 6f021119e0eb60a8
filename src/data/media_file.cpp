#include "data/media_file.h"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/file.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

struct Part {
  std::string archive;
  int64_t offset = 0;
  int64_t bytes = 0;
};

/// Takes a number from the front of `text`.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0 || text.front() == '-') return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, char expected) {
  if (text.empty() || text.front() != expected) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<Part> parse_part(const std::string& path) {
  for (size_t mark = path.find('!'); mark != std::string::npos; mark = path.find('!', mark + 1)) {
    std::string_view rest = std::string_view(path).substr(mark + 1);
    const auto offset = take_number(rest);
    if (!offset || !take(rest, '+')) continue;
    const auto bytes = take_number(rest);
    if (bytes && take(rest, '!')) return Part{path.substr(0, mark), *offset, *bytes};
  }
  return std::nullopt;
}

void check_inside(const Part& part, const std::string& path, int64_t size) {
  if (part.offset > size || part.bytes > size - part.offset)
    fail(ErrorKind::kData, "{}: the archive has {} bytes", path, size);
}

std::string read_part(const Part& part, const std::string& path) {
  std::ifstream file(part.archive, std::ios::binary | std::ios::ate);
  if (!file) fail(ErrorKind::kData, "{}: cannot open {}", path, part.archive);
  check_inside(part, path, static_cast<int64_t>(file.tellg()));
  std::string content(static_cast<size_t>(part.bytes), '\0');
  file.seekg(part.offset);
  file.read(content.data(), part.bytes);
  if (file.gcount() != part.bytes) fail(ErrorKind::kData, "{}: cannot read {}", path, part.archive);
  return content;
}

}  // namespace

std::string archive_part(const std::string& archive, int64_t offset, int64_t bytes, const std::string& name) {
  return fmt::format("{}!{}+{}!{}", archive, offset, bytes, name);
}

std::string read_media(const std::string& path) {
  const auto part = parse_part(path);
  return part ? read_part(*part, path) : read_file(path);
}

MappedMedia::MappedMedia(const std::string& path)
    : file_([&] {
        const auto part = parse_part(path);
        return MappedFile(part ? part->archive : path);
      }()) {
  const auto whole = static_cast<int64_t>(file_.bytes().size());
  const Part part = parse_part(path).value_or(Part{.archive = path, .offset = 0, .bytes = whole});
  check_inside(part, path, whole);
  offset_ = static_cast<size_t>(part.offset);
  size_ = static_cast<size_t>(part.bytes);
}

bool media_exists(const std::string& path) {
  const auto part = parse_part(path);
  std::error_code ignored;
  return fs::is_regular_file(part ? part->archive : path, ignored);
}

}  // namespace fathom
