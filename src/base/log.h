// Logging to standard error; standard output is for results alone.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace fathom::log {

enum class Level { kInfo, kWarning, kError, kSilent };

void set_level(Level level);
/// Prefix of every line, e.g. "rank 3"; empty (the default) for none.
void set_prefix(const std::string& prefix);
/// Thread-safe. On a terminal it takes the place of a progress bar that is being drawn, which is drawn anew.
void write(Level level, std::string_view message);

template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace fathom::log
