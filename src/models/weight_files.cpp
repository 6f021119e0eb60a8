#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "models/weight_map.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

/// Names of the shards in an index. A shard must lie in the folder itself.
std::set<std::string> shard_names(const std::string& index_path) {
  std::set<std::string> names;
  const Json index = read_json_file(index_path);
  const Json* weights = index.find("weight_map");
  if (weights == nullptr || !weights->is_object())
    fail(ErrorKind::kCheckpoint, "{}: no weight_map", index_path);
  for (const auto& [tensor, file] : weights->as_object()) {
    if (!file.is_string() || file.as_string() != fs::path(file.as_string()).filename().string())
      fail(ErrorKind::kCheckpoint, "{}: {} names no file of this folder", index_path, tensor);
    names.insert(file.as_string());
  }
  return names;
}

}  // namespace

WeightFiles WeightFiles::open(const std::string& path) {
  WeightFiles result;
  result.path_ = path;
  const fs::path folder(path);
  const fs::path whole = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  std::vector<std::string> files;
  if (!fs::is_directory(folder)) {
    files.push_back(path);
  } else if (fs::exists(whole)) {
    files.push_back(whole.string());
  } else if (fs::exists(index)) {
    for (const auto& name : shard_names(index.string())) files.push_back((folder / name).string());
  } else {
    fail(ErrorKind::kCheckpoint, "{}: no model.safetensors and no model.safetensors.index.json", path);
  }
  for (const auto& file : files) {
    if (!fs::exists(file)) fail(ErrorKind::kCheckpoint, "{}: the weights are not there", file);
    result.files_.emplace_back(file);
  }
  // Views are taken when all files stand in their final places.
  for (const auto& file : result.files_)
    for (const auto& tensor : file.tensors())
      if (!result.tensors_.emplace(tensor.name, &tensor).second)
        fail(ErrorKind::kCheckpoint, "{}: {} is in two shards", path, tensor.name);
  return result;
}

int64_t WeightFiles::num_elements() const {
  int64_t total = 0;
  for (const auto& [name, view] : tensors_)
    total += static_cast<int64_t>(view->bytes.size()) / dtype_bytes(view->dtype);
  return total;
}

}  // namespace fathom
