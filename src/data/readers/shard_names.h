// Names of many files in one: "train-{000..146}.tar".
#pragma once

#include <string>
#include <vector>

namespace fathom {

/// Expands braces as a shell does: {a,b,c} gives each of a list, {007..012} each number of a range (with as
/// many digits, where one end begins with 0), several braces all combinations, the last one fastest. Errors
/// (kConfig): braces that are not closed or nested, an end of a range that is no number or below its start,
/// over a million names.
std::vector<std::string> expand_braces(const std::string& pattern);

/// The shards that a path of a WebDataset names: one .tar file, braces, or all .tar files of a folder in
/// alphabetical order. Errors (kConfig): as `expand_braces`; no such file (the first is named), none in the
/// folder.
std::vector<std::string> find_shards(const std::string& path);

}  // namespace fathom
