#include "train/run_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace fathom {
namespace {

/// The whole lines of `content` whose step is at most `last_step`.
std::string lines_up_to(const std::string& content, int64_t last_step, const std::string& path) {
  std::string kept;
  size_t start = 0;
  for (int64_t number = 1;; ++number) {
    const size_t end = content.find('\n', start);
    if (end == std::string::npos) return kept;
    const Json line = parse_json(std::string_view(content).substr(start, end - start),
                                 fmt::format("{}: line {}", path, number));
    if (line.at("step").as_int() <= last_step) kept.append(content, start, end + 1 - start);
    start = end + 1;
  }
}

}  // namespace

RunLog::RunLog(std::string path, int64_t last_step) : path_(std::move(path)) {
  if (std::filesystem::exists(path_))
    write_file_atomically(path_, lines_up_to(read_file(path_), last_step, path_));
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(ErrorKind::kData, "{}: cannot open: {}", path_, std::strerror(errno));
}

RunLog::~RunLog() {
  if (fd_ >= 0) ::close(fd_);
}

void RunLog::write(const Json& line) {
  const std::string text = line.dump() + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::write(fd_, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(ErrorKind::kData, "{}: cannot write: {}", path_, std::strerror(errno));
    done += static_cast<size_t>(count);
  }
}

void RunLog::sync() {
  if (::fsync(fd_) != 0) fail(ErrorKind::kData, "{}: cannot sync: {}", path_, std::strerror(errno));
}

}  // namespace fathom
