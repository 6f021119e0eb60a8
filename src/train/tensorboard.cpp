#include "train/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

#include "base/error.h"

namespace fathom {
namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value & 1) ? 0x82F63B78u ^ (value >> 1) : value >> 1;
    table[i] = value;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

/// TFRecord stores checksums rotated, so that a checksum of data with checksums in it stays strong.
uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

template <typename Value>
std::string little_endian(Value value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// Wire types of protocol buffers: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string field_varint(uint64_t number, int64_t value) {
  return varint(number << 3) + varint(static_cast<uint64_t>(value));
}
std::string field_double(uint64_t number, double value) {
  return varint(number << 3 | 1) + little_endian(value);
}
std::string field_float(uint64_t number, float value) {
  return varint(number << 3 | 5) + little_endian(value);
}
std::string field_bytes(uint64_t number, const std::string& bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + bytes;
}

// tensorflow.Event: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
std::string event(int64_t step, const std::string& rest) {
  const double wall_seconds =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return field_double(1, wall_seconds) + field_varint(2, step) + rest;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char byte : bytes) crc = kCrcTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (crc >> 8);
  return crc ^ 0xFFFFFFFFu;
}

EventWriter::EventWriter(const std::string& folder, int64_t first_step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  path_ = fmt::format("{}/events.out.tfevents.{:010}.{:03}.{}", folder, milliseconds / 1000,
                      milliseconds % 1000, ::getpid());
  file_.open(path_, std::ios::binary | std::ios::app);
  append(event(0, field_bytes(3, "brain.Event:2")));
  constexpr int64_t kStart = 1;
  if (first_step > 0) append(event(first_step, field_bytes(7, field_varint(1, kStart))));
  flush();
}

void EventWriter::write(int64_t step, const Scalars& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars)
    summary += field_bytes(1, field_bytes(1, tag) + field_float(2, static_cast<float>(value)));
  append(event(step, field_bytes(5, summary)));
}

void EventWriter::append(const std::string& event) {
  const std::string length = little_endian(static_cast<uint64_t>(event.size()));
  file_ << length << little_endian(masked_crc(length)) << event << little_endian(masked_crc(event));
}

void EventWriter::flush() {
  file_.flush();
  if (!file_) fail(ErrorKind::kData, "{}: cannot write", path_);
}

}  // namespace fathom
