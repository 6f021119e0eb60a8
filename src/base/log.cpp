#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>

namespace fathom::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kSilent:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = spdlog::stderr_color_mt("fathom");
    made->set_pattern("%^[%H:%M:%S %l]%$ %v");
    return made;
  }();
  return *instance;
}

}  // namespace

void set_level(Level level) {
  logger().set_level(to_spdlog(level));
}

void set_prefix(const std::string& prefix) {
  logger().set_pattern(prefix.empty() ? "%^[%H:%M:%S %l]%$ %v" : "%^[%H:%M:%S %l " + prefix + "]%$ %v");
}

void write(Level level, std::string_view message) {
  if (logger().should_log(to_spdlog(level)) && ::isatty(STDERR_FILENO)) std::fputs("\r\033[2K", stderr);
  logger().log(to_spdlog(level), std::string_view(message));
  logger().flush();
}

}  // namespace fathom::log
