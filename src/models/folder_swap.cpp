#include "models/folder_swap.h"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

/// Swaps two names in one step where the file system can, else by two renames.
void exchange(const fs::path& path, const fs::path& other) {
  if (renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS)
    fail(ErrorKind::kCheckpoint, "{}: cannot put the new folder in place: {}", path.string(),
         std::strerror(errno));
  const fs::path aside = path.string() + ".old";
  fs::remove_all(aside);
  fs::rename(path, aside);
  fs::rename(other, path);
  fs::rename(aside, other);
}

void sync_tree(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) sync_path(entry.path().string());
  sync_path(folder.string());
}

/// Writes the new content; a disk that is full gets back what the attempt took of it.
void fill(const fs::path& folder, const std::function<void(const std::string& folder)>& write) {
  try {
    write(folder.string());
    sync_tree(folder);
  } catch (const std::exception&) {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    throw;
  }
}

}  // namespace

void replace_folder(const std::string& path, const std::function<void(const std::string& folder)>& write) {
  const fs::path target = fs::absolute(fs::path(path)).lexically_normal();
  const fs::path place = target.has_filename() ? target : target.parent_path();
  const fs::path temporary = place.string() + ".tmp";
  if (fs::exists(place) && !fs::is_directory(place))
    fail(ErrorKind::kCheckpoint, "{}: a file stands where a model folder should go", place.string());
  try {
    fs::remove_all(temporary);
    fs::create_directories(temporary);
    fill(temporary, write);
    if (fs::exists(place))
      exchange(place, temporary);
    else
      fs::rename(temporary, place);
    sync_path(place.parent_path().string());
    fs::remove_all(temporary);
  } catch (const fs::filesystem_error& error) {
    fail(ErrorKind::kCheckpoint, "{}: cannot write: {}", place.string(), error.code().message());
  }
}

}  // namespace fathom
