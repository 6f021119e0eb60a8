#include "models/tower_agreement.h"

#include <filesystem>
#include <optional>

#include "base/error.h"
#include "models/folder_layout.h"
#include "models/language/hf_map.h"
#include "models/swin/hf_map.h"

namespace fathom {
namespace {

/// A file of a tower's folder, and the record that it has to agree with.
struct Witness {
  std::string path;
  std::string record_path;

  std::optional<Json> read() const {
    if (!std::filesystem::exists(path)) return std::nullopt;
    Json json = read_checkpoint_json(path);
    if (!json.is_object())
      fail(ErrorKind::kCheckpoint, "{}: expected an object, got {}", path, json.kind_name());
    return json;
  }

  void compare(const Json& ours, const Json& theirs, const std::string& prefix = "") const {
    for (const auto& [key, value] : ours.as_object()) {
      const Json* other = theirs.find(key);
      if (other == nullptr || key == "architectures") continue;  // which follow from model_type
      if (value.is_object()) {
        compare(value, *other, prefix + key + ".");
      } else if (*other != value) {
        fail(ErrorKind::kCheckpoint, "{}: {}{} is {}, but {} says {}", path, prefix, key, other->dump(),
             record_path, value.dump());
      }
    }
  }
};

/// `ours` with what `theirs` says in its place.
Json overlaid(Json ours, const Json& theirs) {
  for (const auto& [key, value] : theirs.as_object()) {
    if (value.is_null()) continue;
    Json& place = ours[key];
    place = key == "fathom" && place.is_object() && value.is_object() ? overlaid(place, value) : value;
  }
  return ours;
}

}  // namespace

void require_agreement(const std::string& folder, const LanguageModelConfig& config,
                       const std::string& record_path) {
  const Witness witness{path_in(folder, "config.json"), record_path};
  const auto theirs = witness.read();
  if (!theirs) return;
  const Json ours = language_config_to_hf(config);
  witness.compare(ours,
                  language_config_to_hf(language_config_from_hf(overlaid(ours, *theirs), witness.path)));
}

void require_agreement(const std::string& folder, const SwinConfig& config, const std::string& record_path) {
  const Witness witness{path_in(folder, "config.json"), record_path},
      pixels{path_in(folder, "preprocessor_config.json"), record_path};
  if (const auto theirs = witness.read()) {
    const Json ours = swin_config_to_hf(config);
    witness.compare(ours, swin_config_to_hf(swin_config_from_hf(overlaid(ours, *theirs), witness.path)));
  }
  if (const auto theirs = pixels.read()) {
    SwinConfig read = config;
    read_preprocessing(*theirs, pixels.path, read.preprocessing);
    pixels.compare(preprocessing_to_hf(config), preprocessing_to_hf(read));
  }
}

void require_agreement(const std::string& folder, const AudioEncoderConfig& config,
                       const std::string& record_path) {
  const Witness witness{path_in(folder, "config.json"), record_path};
  const auto theirs = witness.read();
  if (!theirs) return;
  const Json ours = config_to_json(config);
  Json read = ours;
  for (auto& [key, value] : read.as_object())
    if (const Json* said = theirs->find(key); said != nullptr && !said->is_null()) value = *said;
  witness.compare(
      ours, with_error_kind(ErrorKind::kCheckpoint, [&] {
        return config_to_json(read_config<AudioEncoderConfig>({.values = read, .source = witness.path}));
      }));
}

}  // namespace fathom
