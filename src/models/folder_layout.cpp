#include "models/folder_layout.h"

#include <filesystem>

#include "base/error.h"

namespace fathom {

std::string path_in(const std::string& folder, const char* name) {
  return (std::filesystem::path(folder) / name).string();
}

Json read_checkpoint_json(const std::string& path) {
  return with_error_kind(ErrorKind::kCheckpoint, [&] { return read_json_file(path); });
}

const char* encoder_folder(EncoderKind kind) {
  return kind == EncoderKind::kImage ? "vision" : kind == EncoderKind::kText ? "text" : "audio";
}

WeightMap additions_map(const torch::nn::Module& model) {
  WeightMap map;
  for (const auto& rule : identity_map(model))
    if (is_addition(rule.parameter)) map.push_back(rule);
  return map;
}

WeightMap bridge_map(const torch::nn::Module& model) {
  WeightMap map;
  for (const auto& rule : identity_map(model))
    if (!rule.parameter.starts_with("vision.") && !rule.parameter.starts_with("text.") &&
        !rule.parameter.starts_with("audio."))
      map.push_back(rule);
  return map;
}

}  // namespace fathom
