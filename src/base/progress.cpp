#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace fathom {

using std::chrono::duration;

std::string format_duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::max(0.0, seconds) + 0.5);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

Progress::Progress(std::string label, int64_t total, int64_t start)
    : label_(std::move(label)),
      total_(total),
      start_(start),
      done_(start),
      terminal_(::isatty(STDERR_FILENO)) {}

Progress::~Progress() {
  finish();
}

void Progress::update(int64_t done, const std::string& note) {
  done_ = done;
  note_ = note;
  const double interval = terminal_ ? 0.1 : 5.0;
  const auto now = Clock::now();
  if (duration<double>(now - (drawn_ == Clock::time_point{} ? started_ : drawn_)).count() < interval) return;
  drawn_ = now;
  draw();
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  draw();
  if (terminal_) std::fputc('\n', stderr);
}

void Progress::draw() {
  const double elapsed = duration<double>(Clock::now() - started_).count();
  const double rate = elapsed > 0 ? static_cast<double>(done_ - start_) / elapsed : 0;
  std::string line = label_;
  if (total_ > 0) {
    const double share = std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
    if (terminal_) {
      constexpr int kWidth = 24;
      const int filled = static_cast<int>(share * kWidth);
      line += fmt::format(" {:━<{}}{:─<{}}", "", filled, "", kWidth - filled);
    }
    line += fmt::format(" {:3.0f}% {}/{}", 100 * share, done_, total_);
  } else {
    line += fmt::format(" {}", done_);
  }
  line += fmt::format("  {}", format_duration(elapsed));
  if (total_ > done_ && rate > 0) line += fmt::format(", {} left", format_duration((total_ - done_) / rate));
  if (!note_.empty()) line += "  " + note_;
  // Not fmt::print, which throws where nothing can be written: no reason to end a run.
  std::fputs((terminal_ ? "\r\033[2K" + line : line + "\n").c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace fathom
