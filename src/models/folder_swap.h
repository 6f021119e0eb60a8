// A folder that is replaced as a whole.
#pragma once

#include <functional>
#include <string>

namespace fathom {

/// Lets `write` fill PATH.tmp, syncs it, and puts it in PATH's place in one step; what was there is removed.
/// After a crash PATH is the old folder or the new one. Errors (kCheckpoint): PATH is a file; no rights. What
/// `write` throws (a full disk: kData) passes; the old folder stays and nothing is left beside it.
void replace_folder(const std::string& path, const std::function<void(const std::string& folder)>& write);

}  // namespace fathom
