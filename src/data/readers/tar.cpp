#include "data/readers/tar.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace fathom {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kMaxNameBytes = 4096;
constexpr int64_t kMaxPaxBytes = 1 << 20;

// Places and lengths of a header's fields.
struct Field {
  size_t start, length;
};
constexpr Field kName{0, 100}, kSize{124, 12}, kChecksum{148, 8}, kMagic{257, 5}, kPrefix{345, 155};
constexpr size_t kType = 156;

std::string_view cut_at_zero(std::string_view text) {
  return text.substr(0, text.find('\0'));
}

/// GNU's form for numbers beyond eight octal digits: a set first bit, then big-endian.
std::optional<int64_t> binary_number(std::string_view field) {
  if (static_cast<uint8_t>(field[0]) != 0x80) return std::nullopt;  // negative, or beyond 88 bits
  uint64_t value = 0;
  for (const char byte : field.substr(1)) {
    if (value >> 55 != 0) return std::nullopt;
    value = value << 8 | static_cast<uint8_t>(byte);
  }
  return static_cast<int64_t>(value);
}

std::optional<int64_t> number(std::string_view field) {
  if ((static_cast<uint8_t>(field[0]) & 0x80) != 0) return binary_number(field);
  field = cut_at_zero(field);
  field.remove_prefix(std::min(field.find_first_not_of(' '), field.size()));
  field = field.substr(0, field.find(' '));
  int64_t value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, 8);
  if (error != std::errc() || end != field.data() + field.size() || value < 0) return std::nullopt;
  return value;
}

/// The sum of all bytes with blanks in the sum's own place; old programs added signed bytes.
bool sum_fits(std::string_view header) {
  const auto stored = number(header.substr(kChecksum.start, kChecksum.length));
  int64_t unsigned_sum = 0, signed_sum = 0;
  for (size_t i = 0; i < header.size(); ++i) {
    const bool own = i >= kChecksum.start && i < kChecksum.start + kChecksum.length;
    unsigned_sum += own ? ' ' : static_cast<uint8_t>(header[i]);
    signed_sum += own ? ' ' : static_cast<int8_t>(header[i]);
  }
  return stored && (*stored == unsigned_sum || *stored == signed_sum);
}

const char* kind_of(char type) {
  switch (type) {
    case '1':
      return "a hard link";
    case '2':
      return "a symbolic link";
    case '3':
    case '4':
      return "a device";
    case '6':
      return "a pipe";
    case 'S':
      return "a sparse file";
    default:
      return nullptr;
  }
}

}  // namespace

struct TarReader::Header {
  int64_t place = 0;  ///< of the header itself
  char type = '0';
  int64_t bytes = 0;
  std::string name;
  bool is_end = false;
};

TarReader::TarReader(std::span<const std::byte> archive, std::string source)
    : archive_(archive), source_(std::move(source)) {}

void TarReader::refuse(int64_t place, const std::string& reason) const {
  fail(ErrorKind::kData, "{}{}byte {}: {}", source_, source_.empty() ? "" : ": ", place, reason);
}

TarReader::Header TarReader::read_header() {
  const auto size = static_cast<int64_t>(archive_.size());
  Header header{.place = place_};
  if (size - place_ < kBlock)
    refuse(place_, size == place_ ? "no end mark: is the archive cut off?" : "the archive is cut off");
  const std::string_view block(reinterpret_cast<const char*>(archive_.data()) + place_, kBlock);
  place_ += kBlock;
  header.is_end = std::all_of(block.begin(), block.end(), [](char byte) { return byte == '\0'; });
  if (header.is_end) return header;
  if (!sum_fits(block)) refuse(header.place, "no tar header (its checksum is wrong)");
  const auto bytes = number(block.substr(kSize.start, kSize.length));
  if (!bytes) refuse(header.place, "a size that is no number");
  header.type = block[kType];
  header.bytes = *bytes;
  header.name = cut_at_zero(block.substr(kName.start, kName.length));
  const std::string_view prefix = cut_at_zero(block.substr(kPrefix.start, kPrefix.length));
  // GNU keeps other things in the prefix's place, and ends its magic with a blank.
  const bool is_ustar =
      block.substr(kMagic.start, kMagic.length) == "ustar" && block[kMagic.start + 5] == '\0';
  if (is_ustar && !prefix.empty()) header.name = fmt::format("{}/{}", prefix, header.name);
  return header;
}

/// REQUIRES that the content lies within the archive.
std::string_view TarReader::content(const Header& header, int64_t most_bytes) const {
  if (header.bytes > most_bytes)
    refuse(header.place, fmt::format("{} bytes of names, at most {} are accepted", header.bytes, most_bytes));
  return {reinterpret_cast<const char*>(archive_.data()) + header.place + kBlock,
          static_cast<size_t>(header.bytes)};
}

/// Records "LENGTH KEY=VALUE\n", where the length counts the whole record.
void TarReader::read_pax(const Header& header, Overrides& overrides) const {
  std::string_view rest = content(header, kMaxPaxBytes);
  while (!rest.empty()) {
    size_t length = 0;
    const auto [end, error] =
        std::from_chars(rest.data(), rest.data() + std::min<size_t>(rest.size(), 10), length);
    const auto digits = static_cast<size_t>(end - rest.data());
    if (error != std::errc() || length > rest.size() || length < digits + 3 || rest[digits] != ' ' ||
        rest[length - 1] != '\n')
      refuse(header.place, "a broken pax header");
    const std::string_view record = rest.substr(digits + 1, length - digits - 2);
    rest.remove_prefix(length);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) refuse(header.place, "a broken pax header");
    const std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") overrides.name = std::string(value);
    if (key.starts_with("GNU.sparse.")) refuse(header.place, "a sparse file: only plain ones are read");
    if (key != "size") continue;
    int64_t bytes = 0;
    const auto [size_end, size_error] = std::from_chars(value.data(), value.data() + value.size(), bytes);
    if (size_error != std::errc() || size_end != value.data() + value.size() || bytes < 0)
      refuse(header.place, "a size that is no number");
    overrides.bytes = bytes;
  }
}

std::string TarReader::name_of(const Header& header, const Overrides& overrides) const {
  std::string name = overrides.name.value_or(header.name);
  if (name.empty()) refuse(header.place, "a file without a name");
  if (static_cast<int64_t>(name.size()) > kMaxNameBytes)
    refuse(header.place, fmt::format("a name of {} bytes", name.size()));
  if (find_invalid_utf8(name) || name.find('\0') != std::string::npos)
    refuse(header.place, "a name that is not UTF-8");
  return name;
}

std::optional<TarMember> TarReader::next() {
  Overrides overrides;
  while (!std::exchange(done_, true)) {  // until it is known that reading can go on
    Header header = read_header();
    complete_ = header.is_end;
    if (complete_) return std::nullopt;
    const bool describes_next =
        header.type == 'x' || header.type == 'g' || header.type == 'L' || header.type == 'K';
    if (!describes_next && overrides.bytes) header.bytes = *overrides.bytes;
    const char* refused = kind_of(header.type);
    if (refused != nullptr && header.type != 'S') header.bytes = 0;  // links have a size and no content
    const int64_t left = static_cast<int64_t>(archive_.size()) - place_;
    if (header.bytes > left)
      refuse(header.place, fmt::format("a member of {} bytes, but only {} follow: is the archive cut off?",
                                       header.bytes, left));
    const int64_t offset = place_;
    place_ += std::min(left, (header.bytes + kBlock - 1) / kBlock * kBlock);
    if (header.type == 'x') {
      read_pax(header, overrides);
    } else if (header.type == 'L') {
      overrides.name = std::string(cut_at_zero(content(header, kMaxNameBytes)));
    }
    done_ = false;
    if (header.type == '0' || header.type == '\0' || header.type == '7') {
      const std::string name = name_of(header, overrides);
      overrides = {};
      if (!name.ends_with('/')) return TarMember{name, offset, header.bytes};
    } else if (refused != nullptr) {
      refuse(header.place,
             fmt::format("{}: {}: only plain files are read", name_of(header, overrides), refused));
    } else if (!describes_next) {
      overrides = {};
    }
  }
  return std::nullopt;
}

}  // namespace fathom
