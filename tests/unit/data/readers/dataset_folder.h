// A data set that a test writes and opens.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "data/readers/dataset.h"
#include "temporary_folder.h"

namespace fathom::testing {

/// A folder for files of data sets; empty ones in the place of pictures suffice, since readers look at names
/// only.
class DatasetFolder : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content = "") {
    const std::string path = folder_ / name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    write_file_atomically(path, content);
    return path;
  }
  std::unique_ptr<Dataset> open(const std::string& name, DatasetConfig config = {}) {
    config.path = name.empty() ? folder_.path() : folder_ / name;
    return open_dataset(config);
  }
  std::string error_of(const std::string& name, DatasetConfig config = {}) {
    try {
      open(name, config);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  TemporaryFolder folder_;
};

}  // namespace fathom::testing
