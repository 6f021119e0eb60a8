#include "data/scenes/write.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/parallel.h"
#include "data/audio/encode.h"
#include "data/image/encode.h"
#include "data/scenes/captions.h"
#include "data/scenes/questions.h"
#include "data/scenes/render.h"
#include "data/scenes/scene.h"
#include "data/scenes/sound.h"

namespace fathom::scenes {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "scenes.json";
constexpr int64_t kScenesAtATime = 64;

Json marker(const WorldConfig& config) {
  Json out;
  out["world"] = "scenes";
  out["version"] = kScenesVersion;
  out["train"] = config.train;
  out["val"] = config.val;
  out["seed"] = config.seed;
  out["size"] = config.size;
  if (config.max_objects != kMaxObjects) out["max_objects"] = config.max_objects;
  if (config.sounds) out["sounds"] = kSoundsVersion;
  return out;
}

bool same_world(const Json& a, const Json& b) {
  constexpr std::array kKeys = {"world", "version", "train", "val", "seed", "size", "max_objects", "sounds"};
  const auto value = [](const Json& world, const char* key) {
    const Json* found = world.find(key);
    return found ? *found : Json();
  };
  return std::all_of(kKeys.begin(), kKeys.end(),
                     [&](const char* key) { return value(a, key) == value(b, key); });
}

bool is_complete(const Json& world) {
  const Json* complete = world.find("complete");
  return complete && complete->is_bool() && complete->as_bool();
}

/// A file written under another name until `finish`: readers see all of it or nothing.
class LineFile {
 public:
  explicit LineFile(std::string path)
      : path_(std::move(path)), out_(path_ + ".tmp", std::ios::binary | std::ios::trunc) {
    check();
  }
  void write(const std::string& lines) {
    out_ << lines;
    check();
  }
  void finish() {
    out_.close();
    check();
    sync_path(path_ + ".tmp");
    fs::rename(path_ + ".tmp", path_);
  }

 private:
  void check() const {
    if (!out_) fail(ErrorKind::kData, "{}: cannot write: {}", path_, std::strerror(errno));
  }
  std::string path_;
  std::ofstream out_;
};

/// One scene's share of the three outputs.
struct Written {
  std::string caption_line;
  std::string question_lines;
  int64_t num_questions = 0;
};

Json texts_to_json(const std::vector<std::string>& texts) {
  Json list = Json::array();
  for (const std::string& text : texts) list.push_back(text);
  return list;
}

Json caption_row(const Scene& scene, const std::string& image, const std::string& sound) {
  Json row;
  row["image"] = image;
  if (!sound.empty()) row["audio"] = sound;
  row["captions"] = texts_to_json(make_captions(scene));
  row["split"] = split_name(scene.split);
  row["unseen"] = scene.unseen;
  row["background"] = kBackgrounds[static_cast<size_t>(scene.background)];
  row["objects"] = objects_to_json(scene);
  return row;
}

Json question_row(const Question& question, const Scene& scene, const std::string& image) {
  Json row;
  row["image"] = image;
  row["question"] = question.text;
  row["answers"] = texts_to_json({question.answer});
  row["kind"] = question.kind;
  row["program"] = program_to_json(question.program);
  row["split"] = split_name(scene.split);
  row["unseen"] = scene.unseen;
  return row;
}

void write_media(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
  out.close();
  if (!out) fail(ErrorKind::kData, "{}: cannot write: {}", path, std::strerror(errno));
}

Written write_scene(const Scene& scene, const WorldConfig& config, const std::string& folder) {
  const std::string name = fmt::format("{}-{:06}", split_name(scene.split), scene.index);
  const std::string image = "images/" + name + ".png";
  const std::string sound = config.sounds ? "sounds/" + name + ".wav" : "";
  write_media(folder + "/" + image, encode_png(render(scene, config.size)));
  if (config.sounds) write_media(folder + "/" + sound, encode_wav(make_sound(scene)));
  Written written{.caption_line = caption_row(scene, image, sound).dump() + "\n"};
  for (const Question& question : make_questions(scene)) {
    written.question_lines += question_row(question, scene, image).dump() + "\n";
    ++written.num_questions;
  }
  return written;
}

/// True if this very world is there already. A started world of the same arguments is written again from its
/// beginning.
bool prepare_folder(const WorldConfig& config, const std::string& folder) {
  const Json ours = marker(config);
  if (fs::exists(folder + "/" + kMarker)) {
    const Json theirs = read_world_marker(folder);
    if (!same_world(ours, theirs))
      fail(ErrorKind::kConfig, "{}: holds another world ({}): choose another folder, or delete it", folder,
           theirs.dump());
    return is_complete(theirs);
  }
  for (const char* name : {"captions.jsonl", "questions.jsonl"})
    if (fs::exists(folder + "/" + name))
      fail(ErrorKind::kConfig, "{}: holds a {} that is not of the scenes world: choose another folder",
           folder, name);
  std::error_code error;
  fs::create_directories(folder + "/images", error);
  if (config.sounds && !error) fs::create_directories(folder + "/sounds", error);
  if (error) fail(ErrorKind::kData, "{}: cannot make the folder: {}", folder, error.message());
  write_json_file(folder + "/" + kMarker, ours);
  return false;
}

}  // namespace

void WorldConfig::validate() const {
  if (train < 0 || val < 0 || train + val == 0)
    fail(ErrorKind::kUsage, "{} train and {} val scenes: expected at least one scene, and no negative number",
         train, val);
  if (size < 32 || size > 512) fail(ErrorKind::kUsage, "a size of {} pixels: expected 32 to 512", size);
  if (max_objects < 1 || max_objects > kMaxObjects)
    fail(ErrorKind::kUsage, "max_objects of {}: expected 1 to {}", max_objects, kMaxObjects);
}

Json read_world_marker(const std::string& folder) {
  return read_json_file(folder + "/" + kMarker);
}

bool write_world(const WorldConfig& config, const std::string& folder,
                 const std::function<void(int64_t)>& progress) {
  config.validate();
  if (prepare_folder(config, folder)) return false;
  const int64_t num_threads = config.num_threads > 0 ? config.num_threads : num_hardware_threads();
  const int64_t total = config.train + config.val;
  LineFile captions(folder + "/captions.jsonl");
  LineFile questions(folder + "/questions.jsonl");
  int64_t num_questions = 0;
  for (int64_t start = 0; start < total; start += kScenesAtATime) {
    std::vector<Written> part(static_cast<size_t>(std::min(kScenesAtATime, total - start)));
    parallel_for_each(static_cast<int64_t>(part.size()), num_threads, [&](int64_t i) {
      const int64_t number = start + i;
      const bool is_train = number < config.train;
      const Scene scene = make_scene(is_train ? Split::kTrain : Split::kVal, config.seed,
                                     is_train ? number : number - config.train, config.max_objects);
      part[static_cast<size_t>(i)] = write_scene(scene, config, folder);
    });
    for (const Written& written : part) {
      captions.write(written.caption_line);
      questions.write(written.question_lines);
      num_questions += written.num_questions;
    }
    progress(start + static_cast<int64_t>(part.size()));
  }
  captions.finish();
  questions.finish();
  sync_path(folder + "/images");
  if (config.sounds) sync_path(folder + "/sounds");
  Json finished = marker(config);
  finished["complete"] = true;
  finished["captions"] = total * kCaptionsPerScene;
  finished["questions"] = num_questions;
  write_json_file(folder + "/" + kMarker, finished);
  return true;
}

}  // namespace fathom::scenes
