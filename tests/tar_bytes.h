// Tar archives made by hand, right and wrong.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace fathom::testing {

/// A header whose checksum is right. `size_field`: the 12 bytes of the size, or empty for `bytes` in octal.
struct TarHeader {
  std::string name;
  uint64_t bytes = 0;
  char type = '0';
  std::string size_field = {};
  std::string prefix = {};
  std::string magic = std::string(
      "ustar\0"
      "00",
      8);
};

inline std::string tar_header(const TarHeader& header) {
  std::string block(512, '\0');
  const auto put = [&](size_t place, const std::string& text) { block.replace(place, text.size(), text); };
  char octal[32];
  std::snprintf(octal, sizeof octal, "%011llo", static_cast<unsigned long long>(header.bytes));
  put(0, header.name.substr(0, 100));
  put(100, "0000644");
  put(124, header.size_field.empty() ? octal : header.size_field);
  put(148, "        ");
  block[156] = header.type;
  put(257, header.magic);
  put(345, header.prefix);
  unsigned sum = 0;
  for (const char byte : block) sum += static_cast<uint8_t>(byte);
  std::snprintf(octal, sizeof octal, "%06o", sum);
  put(148, std::string(octal) + '\0' + ' ');
  return block;
}

inline std::string tar_padded(const std::string& content) {
  return content + std::string((512 - content.size() % 512) % 512, '\0');
}

inline std::string tar_file(const std::string& name, const std::string& content) {
  return tar_header({.name = name, .bytes = content.size()}) + tar_padded(content);
}

/// A header of type 'x' for the file that follows.
inline std::string tar_pax(const std::string& records) {
  return tar_header({.name = "pax", .bytes = records.size(), .type = 'x'}) + tar_padded(records);
}

inline std::string tar_end() {
  return std::string(1024, '\0');
}

}  // namespace fathom::testing
