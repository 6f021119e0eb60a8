#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/safetensors.h"
#include "models/folder_swap.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char* kFormat = "fathom-training-state";
constexpr int64_t kVersion = 1;
constexpr const char* kPrefix = "step-";

std::string hexadecimal(uint64_t value) {
  return fmt::format("{:016x}", value);
}

/// The step in a name such as "step-00000500".
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* begin = name.data() + std::char_traits<char>::length(kPrefix);
  const char* end = name.data() + name.size();
  int64_t step = 0;
  const auto [stopped, error] = std::from_chars(begin, end, step);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return step;
}

Json describe_file(const std::string& path, uint64_t checksum) {
  Json entry = Json::object();
  entry["bytes"] = static_cast<int64_t>(fs::file_size(path));
  entry["checksum"] = hexadecimal(checksum);
  return entry;
}

Json shape_json(at::IntArrayRef sizes) {
  Json shape = Json::array();
  for (const int64_t size : sizes) shape.push_back(size);
  return shape;
}

/// A tensor that lies whole in one file: a single slice that starts at 0.
Json describe_tensor(const at::Tensor& tensor, const std::string& file) {
  Json slice = Json::object();
  slice["file"] = file;
  slice["start"] = shape_json(std::vector<int64_t>(static_cast<size_t>(tensor.dim()), 0));
  slice["shape"] = shape_json(tensor.sizes());
  Json entry = Json::object();
  entry["dtype"] = dtype_name(to_dtype(tensor.scalar_type()));
  entry["shape"] = shape_json(tensor.sizes());
  entry["slices"] = Json(Json::Array{slice});
  return entry;
}

void write_state(const std::string& folder, const TrainingState& state) {
  Json files = Json::object();
  Json tensors = Json::object();
  for (const auto& [group, members] : state.tensors) {
    const std::string file = group + ".safetensors";
    const uint64_t checksum = save_tensors(folder + "/" + file, members);
    files[file] = describe_file(folder + "/" + file, checksum);
    for (const auto& [name, tensor] : members) tensors[group + "/" + name] = describe_tensor(tensor, file);
  }
  const std::string values = state.values.dump(2);
  write_file_atomically(folder + "/state.json", values);
  files["state.json"] = describe_file(folder + "/state.json", checksum64(std::as_bytes(std::span(values))));
  Json manifest = Json::object();
  manifest["format"] = kFormat;
  manifest["version"] = kVersion;
  manifest["step"] = state.step;
  manifest["files"] = files;
  manifest["tensors"] = tensors;
  write_json_file(folder + "/manifest.json", manifest);
}

void check_file(const std::string& path, const Json& entry) {
  const MappedFile file(path);
  if (static_cast<int64_t>(file.bytes().size()) != entry.at("bytes").as_int() ||
      hexadecimal(checksum64(file.bytes())) != entry.at("checksum").as_string())
    fail(ErrorKind::kCheckpoint, "{}: does not match its checksum; the file is damaged", path);
}

TrainingState read_state(const std::string& path) {
  const Json manifest = read_json_file(path + "/manifest.json");
  if (manifest.at("format").as_string() != kFormat || manifest.at("version").as_int() != kVersion)
    fail(ErrorKind::kCheckpoint, "{}: not a training state of version {}", path, kVersion);
  TrainingState state;
  state.step = manifest.at("step").as_int();
  for (const auto& [name, entry] : manifest.at("files").as_object()) {
    check_file(path + "/" + name, entry);
    const fs::path file(name);
    if (file.extension() == ".safetensors") state.tensors[file.stem()] = load_tensors(path + "/" + name);
  }
  state.values = read_json_file(path + "/state.json");
  return state;
}

}  // namespace

std::string checkpoint_path(const std::string& folder, int64_t step) {
  return fmt::format("{}/{}{:08}", folder, kPrefix, step);
}

void save_checkpoint(const std::string& folder, const TrainingState& state) {
  replace_folder(checkpoint_path(folder, state.step),
                 [&](const std::string& beside) { write_state(beside, state); });
}

std::vector<int64_t> checkpoint_steps(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (const auto step = step_of(entry.path().filename())) steps.push_back(*step);
  std::sort(steps.begin(), steps.end());
  return steps;
}

TrainingState load_checkpoint(const std::string& path) {
  try {
    return read_state(path);
  } catch (const Error& error) {
    fail(ErrorKind::kCheckpoint, "{}: cannot be resumed from: {}", path, error.what());
  }
}

std::optional<TrainingState> load_latest_checkpoint(const std::string& folder) {
  const std::vector<int64_t> steps = checkpoint_steps(folder);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      return load_checkpoint(checkpoint_path(folder, *step));
    } catch (const Error& error) {
      if (step + 1 == steps.rend()) throw;
      log::warning("{}; trying the one before", error.what());
    }
  }
  return std::nullopt;
}

void prune_checkpoints(const std::string& folder, int64_t keep) {
  const std::vector<int64_t> steps = checkpoint_steps(folder);
  std::error_code ignored;
  for (size_t i = 0; keep > 0 && i + static_cast<size_t>(keep) < steps.size(); ++i)
    fs::remove_all(checkpoint_path(folder, steps[i]), ignored);
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".tmp") fs::remove_all(entry.path(), ignored);
}

}  // namespace fathom
