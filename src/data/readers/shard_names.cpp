#include "data/readers/shard_names.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostNames = 1'000'000;

[[noreturn]] void refuse(const std::string& pattern, const std::string& reason) {
  fail(ErrorKind::kConfig, "{}: {}", pattern, reason);
}

int64_t bound(std::string_view text, const std::string& pattern) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    refuse(pattern, fmt::format("\"{}\" is no number", text));
  return value;
}

std::vector<std::string> numbers(std::string_view first, std::string_view last, const std::string& pattern) {
  const int64_t low = bound(first, pattern), high = bound(last, pattern);
  if (high < low) refuse(pattern, fmt::format("the range {}..{} falls", first, last));
  if (high - low >= kMostNames) refuse(pattern, "over a million names");
  const bool padded = (first.size() > 1 && first[0] == '0') || (last.size() > 1 && last[0] == '0');
  const size_t digits = padded ? std::max(first.size(), last.size()) : 1;
  std::vector<std::string> result;
  for (int64_t value = low; value <= high; ++value) result.push_back(fmt::format("{:0{}}", value, digits));
  return result;
}

std::vector<std::string> choices(std::string_view inside, const std::string& pattern) {
  if (inside.find('{') != std::string_view::npos) refuse(pattern, "braces within braces");
  const size_t dots = inside.find("..");
  if (dots != std::string_view::npos)
    return numbers(inside.substr(0, dots), inside.substr(dots + 2), pattern);
  std::vector<std::string> result;
  for (size_t start = 0; start <= inside.size();) {
    const size_t comma = std::min(inside.find(',', start), inside.size());
    result.emplace_back(inside.substr(start, comma - start));
    start = comma + 1;
  }
  return result;
}

bool is_tar(const fs::path& path) {
  return path.extension() == ".tar";
}

}  // namespace

std::vector<std::string> expand_braces(const std::string& pattern) {
  std::vector<std::string> names = {""};
  std::string_view rest = pattern;
  while (true) {
    const size_t open = rest.find('{');
    const std::string_view plain = rest.substr(0, open);
    if (plain.find('}') != std::string_view::npos) refuse(pattern, "a brace closes that was not opened");
    for (std::string& name : names) name += plain;
    if (open == std::string_view::npos) return names;
    const size_t close = rest.find('}', open);
    if (close == std::string_view::npos) refuse(pattern, "a brace is not closed");
    const auto endings = choices(rest.substr(open + 1, close - open - 1), pattern);
    if (static_cast<int64_t>(names.size() * endings.size()) > kMostNames)
      refuse(pattern, "over a million names");
    std::vector<std::string> longer;
    for (const std::string& name : names)
      for (const std::string& ending : endings) longer.push_back(name + ending);
    names = std::move(longer);
    rest.remove_prefix(close + 1);
  }
}

std::vector<std::string> find_shards(const std::string& path) {
  std::vector<std::string> shards;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.is_regular_file() && is_tar(entry.path())) shards.push_back(entry.path().string());
    std::sort(shards.begin(), shards.end());
    if (shards.empty()) fail(ErrorKind::kConfig, "{}: no .tar files", path);
    return shards;
  }
  shards = fs::exists(path, ignored) ? std::vector<std::string>{path} : expand_braces(path);
  for (const std::string& shard : shards)
    if (!fs::is_regular_file(shard, ignored)) fail(ErrorKind::kConfig, "{}: no such file", shard);
  return shards;
}

}  // namespace fathom
