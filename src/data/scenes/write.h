// The scenes world as files.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/json.h"
#include "data/scenes/scene.h"

namespace fathom::scenes {

struct WorldConfig {
  int64_t train = 6000;  ///< scenes
  int64_t val = 500;     ///< scenes, every other one with unseen combinations of shape and colour
  int64_t seed = 0;
  int64_t size = 64;  ///< pixels a side
  int max_objects = kMaxObjects;
  bool sounds = false;      ///< a sound for every scene as well (data/scenes/sound.h)
  int64_t num_threads = 0;  ///< 0: all of the machine's

  /// Errors (kUsage): negative counts, no scene at all, a size outside 32 … 512, max_objects outside
  /// 1 … kMaxObjects.
  void validate() const;
};

/// Writes `folder`/images/SPLIT-NUMBER.png (and sounds/SPLIT-NUMBER.wav), captions.jsonl, questions.jsonl
/// and, last, scenes.json (arguments, version, counts), so that an interrupted run is told from a finished
/// one. `progress` is told how many scenes are done, on the caller's thread. Returns false when the folder
/// already holds this very world, complete. Errors (kConfig): the folder holds another world, or manifests
/// that are none of ours. (kData): it cannot be written.
bool write_world(const WorldConfig& config, const std::string& folder,
                 const std::function<void(int64_t)>& progress);

/// What scenes.json says: {"world", "version", "train", "val", "seed", "size", "complete", "captions",
/// "questions"}, with fewer objects than kMaxObjects also "max_objects", with sounds "sounds", their version.
Json read_world_marker(const std::string& folder);

}  // namespace fathom::scenes
