#include "data/audio/container.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include "base/error.h"

namespace fathom {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

uint64_t little_endian(std::span<const std::byte> bytes, size_t at, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value |= std::to_integer<uint64_t>(bytes[at + i]) << (8 * i);
  return value;
}

/// A frame of MPEG audio begins with eleven set bits; the layer is never 0, nor the bit rate or rate 15
/// and 3.
bool is_mpeg_frame(std::string_view text) {
  if (text.size() < 4) return false;
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  return at(0) == 0xFF && (at(1) & 0xE0) == 0xE0 && (at(1) & 0x06) != 0 && (at(2) & 0xF0) != 0xF0 &&
         (at(2) & 0x0C) != 0x0C;
}

// What a file that is no sound of ours seems to be, for the message.
std::string describe_unknown(std::string_view text) {
  if (text.substr(4).starts_with("ftyp")) return "an MP4 or M4A file";
  if (text.starts_with("FORM")) return "an AIFF file";
  if (text.starts_with(".snd")) return "an AU file";
  if (text.starts_with("RIFF")) return "a RIFF file that is no WAV";
  if (text.starts_with("\x1A\x45\xDF\xA3")) return "a Matroska or WebM file";
  if (text.starts_with("\xFF\xD8\xFF") || text.starts_with("\x89PNG")) return "an image";
  std::string start(text.substr(0, 16));
  std::replace_if(
      start.begin(), start.end(), [](unsigned char c) { return !std::isprint(c); }, '.');
  return fmt::format("a file that begins with \"{}\"", start);
}

uint64_t big_endian(std::span<const std::byte> bytes, size_t at, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | std::to_integer<uint64_t>(bytes[at + i]);
  return value;
}

/// Bytes of the ID3v2 tag that a file begins with: ten and what seven bits of each of four bytes say.
size_t id3_bytes(std::span<const std::byte> bytes) {
  if (bytes.size() < 10 || !text_of(bytes).starts_with("ID3")) return 0;
  size_t size = 0;
  for (size_t i = 6; i < 10; ++i) size = size << 7 | (std::to_integer<size_t>(bytes[i]) & 0x7F);
  const bool has_footer = (std::to_integer<int>(bytes[5]) & 0x10) != 0;
  return 10 + size + (has_footer ? 10 : 0);
}

struct Mp3Frame {
  int64_t sample_rate;
  int64_t samples;  ///< of each channel
  size_t bytes;
  size_t tag_offset;  ///< where a Xing header would stand
};

/// Source: ISO/IEC 11172-3, section 2.4.2.3, and 13818-3. Nothing for another layer or a free bit rate.
std::optional<Mp3Frame> read_mp3_frame(std::span<const std::byte> bytes) {
  constexpr int kKilobits[2][15] = {{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
                                    {0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160}};
  constexpr int kRates[3] = {44100, 48000, 32000};
  if (!is_mpeg_frame(text_of(bytes))) return std::nullopt;
  const auto at = [&](size_t i) { return std::to_integer<unsigned>(bytes[i]); };
  const unsigned version = at(1) >> 3 & 3, layer = at(1) >> 1 & 3;
  if (version == 1 || layer != 1) return std::nullopt;
  const bool is_first = version == 3, is_mono = at(3) >> 6 == 3, has_checksum = (at(1) & 1) == 0;
  const int kilobits = kKilobits[is_first ? 0 : 1][at(2) >> 4];
  if (kilobits == 0) return std::nullopt;
  const int rate = kRates[at(2) >> 2 & 3] >> (is_first ? 0 : version == 2 ? 1 : 2);
  const size_t side = is_first ? (is_mono ? 17 : 32) : (is_mono ? 9 : 17);
  return Mp3Frame{
      .sample_rate = rate,
      .samples = is_first ? 1152 : 576,
      .bytes = static_cast<size_t>((is_first ? 144 : 72) * 1000 * kilobits / rate) + (at(2) >> 1 & 1),
      .tag_offset = 4 + side + (has_checksum ? 2 : 0)};
}

/// What programs write for a size that they do not know yet: the largest numbers of 32 bits, with a sign and
/// without, less what precedes the sound. A day of sound lies between the two.
bool is_placeholder(uint64_t size) {
  constexpr uint64_t kHeaders = 0x1000;
  return (size >= 0x80000000 - kHeaders && size <= 0x80000000) || size > 0xFFFFFFFF - kHeaders;
}

}  // namespace

const char* audio_format_name(AudioFormat format) {
  switch (format) {
    case AudioFormat::kWav:
      return "WAV";
    case AudioFormat::kFlac:
      return "FLAC";
    case AudioFormat::kOgg:
      return "Ogg";
    case AudioFormat::kMp3:
      return "MP3";
  }
  return "";
}

AudioFormat detect_audio_format(std::span<const std::byte> bytes, const std::string& source) {
  const std::string_view text = text_of(bytes);
  if (text.size() >= 12 && (text.starts_with("RIFF") || text.starts_with("RF64")) &&
      text.substr(8).starts_with("WAVE"))
    return AudioFormat::kWav;
  if (text.starts_with("fLaC")) return AudioFormat::kFlac;
  if (text.starts_with("OggS")) return AudioFormat::kOgg;
  if (text.starts_with("ID3") || is_mpeg_frame(text)) return AudioFormat::kMp3;
  if (text.empty()) fail(ErrorKind::kData, "{}: the file is empty", source);
  fail(ErrorKind::kData, "{}: expected a WAV, FLAC, Ogg or MP3 file, found {}", source,
       text.size() < 4 ? "only a few bytes" : describe_unknown(text));
}

std::optional<WavClaim> read_wav_claim(std::span<const std::byte> bytes) {
  const bool is_rf64 = text_of(bytes).starts_with("RF64");
  WavClaim claim;
  uint64_t wide_size = 0;  // of the sound, where 32 bits do not hold it: EBU Tech 3306
  for (size_t at = 12; at + 8 <= bytes.size();) {
    const std::string_view name = text_of(bytes).substr(at, 4);
    const uint64_t size = little_endian(bytes, at + 4, 4);
    const uint64_t left = bytes.size() - at - 8;
    if (name == "fmt " && size >= 16 && left >= 16) {
      claim.sample_rate = static_cast<int64_t>(little_endian(bytes, at + 12, 4));
      claim.bytes_per_second = static_cast<int64_t>(little_endian(bytes, at + 16, 4));
    }
    if (is_rf64 && name == "ds64" && size >= 16 && left >= 16) wide_size = little_endian(bytes, at + 16, 8);
    if (name == "data") {
      const bool is_wide = is_rf64 && size == 0xFFFFFFFF && wide_size > 0 && wide_size <= INT64_MAX;
      if ((!is_wide && is_placeholder(size)) || claim.sample_rate == 0) return std::nullopt;
      const uint64_t announced = is_wide ? wide_size : size;
      claim.announced_bytes = static_cast<int64_t>(announced);
      claim.present_bytes = static_cast<int64_t>(std::min(announced, left));
      return claim;
    }
    if (size > left) return std::nullopt;
    at += 8 + static_cast<size_t>(size + size % 2);
  }
  return std::nullopt;
}

std::optional<Mp3Claim> read_mp3_claim(std::span<const std::byte> bytes) {
  const std::string_view text = text_of(bytes);
  size_t at = id3_bytes(bytes);
  auto frame = at < bytes.size() ? read_mp3_frame(bytes.subspan(at)) : std::nullopt;
  if (!frame) return std::nullopt;
  Mp3Claim claim{.sample_rate = frame->sample_rate};
  // A Xing frame (called Info where the bit rate is constant) stands first and holds no sound.
  const size_t tag = at + frame->tag_offset;
  if (text.substr(std::min(tag, text.size())).starts_with("Xing") ||
      text.substr(std::min(tag, text.size())).starts_with("Info")) {
    if (tag + 12 <= bytes.size() && (std::to_integer<int>(bytes[tag + 7]) & 1) != 0)
      claim.announced_samples = static_cast<int64_t>(big_endian(bytes, tag + 8, 4)) * frame->samples;
    at += frame->bytes;
  }
  while (at < bytes.size() && (frame = read_mp3_frame(bytes.subspan(at)))) {
    at += frame->bytes;
    if (at <= bytes.size()) claim.present_samples += frame->samples;
  }
  claim.ends_within_frame = at > bytes.size();
  return claim;
}

bool ends_with_last_ogg_page(std::span<const std::byte> bytes) {
  constexpr size_t kHeader = 27;
  constexpr std::byte kLastPage{4};
  bool is_last = false;
  size_t at = 0;
  while (at + kHeader <= bytes.size() && text_of(bytes).substr(at, 4) == "OggS") {
    const auto segments = std::to_integer<size_t>(bytes[at + 26]);
    if (at + kHeader + segments > bytes.size()) return false;
    size_t body = 0;
    for (size_t i = 0; i < segments; ++i) body += std::to_integer<size_t>(bytes[at + kHeader + i]);
    is_last = (bytes[at + 5] & kLastPage) == kLastPage;
    at += kHeader + segments + body;
  }
  return is_last && at <= bytes.size();
}

}  // namespace fathom
