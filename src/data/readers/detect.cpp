// Which format lies at a path.
#include <algorithm>
#include <array>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "data/readers/json_lists.h"
#include "data/readers/reading.h"
#include "data/readers/shard_names.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr std::array kManifestNames = {"captions.jsonl", "qa.jsonl", "samples.jsonl", "clips.jsonl"};

struct FormatName {
  DataFormat format;
  const char* name;
};
constexpr FormatName kNames[] = {
    {DataFormat::kAuto, "auto"},
    {DataFormat::kJsonLines, "jsonl"},
    {DataFormat::kCsv, "csv"},
    {DataFormat::kTsv, "tsv"},
    {DataFormat::kImageCaptions, "image_captions"},
    {DataFormat::kImageClasses, "image_classes"},
    {DataFormat::kCocoCaptions, "coco_captions"},
    {DataFormat::kVqa, "vqa"},
    {DataFormat::kWebDataset, "webdataset"},
    {DataFormat::kText, "text"},
};

DataFormat format_of_extension(const fs::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".jsonl" || extension == ".ndjson") return DataFormat::kJsonLines;
  if (extension == ".csv") return DataFormat::kCsv;
  if (extension == ".tsv") return DataFormat::kTsv;
  if (extension == ".txt") return DataFormat::kText;
  if (extension == ".tar") return DataFormat::kWebDataset;
  return DataFormat::kAuto;
}

/// Which of COCO's and VQA's members the object has.
DataFormat format_of_json(const std::string& path) {
  const MappedFile file(path);
  bool has_images = false, has_questions = false;
  read_json_lists(file.text(), path,
                  {{"images", [&](int64_t, const Json&) { has_images = true; }},
                   {"questions", [&](int64_t, const Json&) { has_questions = true; }}});
  if (has_questions) return DataFormat::kVqa;
  if (has_images) return DataFormat::kCocoCaptions;
  fail(ErrorKind::kData,
       "{}: neither \"images\" (COCO) nor \"questions\" (VQA); lists of rows go into .jsonl files", path);
}

std::vector<fs::path> manifests_in(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const char* name : kManifestNames)
    if (fs::is_regular_file(folder / name)) return {folder / name};
  for (const auto& entry : fs::directory_iterator(folder)) {
    const DataFormat format = format_of_extension(entry.path());
    const bool is_manifest =
        format != DataFormat::kAuto && format != DataFormat::kText && format != DataFormat::kWebDataset;
    if (entry.is_regular_file() && is_manifest) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

DetectedFormat detect_in_folder(const fs::path& folder) {
  const auto manifests = manifests_in(folder);
  if (manifests.size() == 1) return {format_of_extension(manifests[0]), manifests[0].string()};
  if (manifests.size() > 1)
    fail(ErrorKind::kConfig, "{}: several manifests ({} and {}): name the one to read", folder.string(),
         manifests[0].filename().string(), manifests[1].filename().string());
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == ".tar")
      return {DataFormat::kWebDataset, folder.string()};
  const auto images = find_images(folder.string());
  if (images.empty())
    fail(ErrorKind::kConfig,
         "{}: no manifest (captions.jsonl, qa.jsonl, samples.jsonl, clips.jsonl, *.jsonl, *.csv, "
         "*.tsv), no shards (*.tar) and no images",
         folder.string());
  const bool captions = std::any_of(images.begin(), images.end(), [](const fs::path& image) {
    return fs::exists(fs::path(image).replace_extension(".txt"));
  });
  const bool nested = std::all_of(images.begin(), images.end(), [&](const fs::path& image) {
    return image.lexically_relative(folder).has_parent_path();
  });
  return {!captions && nested ? DataFormat::kImageClasses : DataFormat::kImageCaptions, folder.string()};
}

}  // namespace

const char* format_name(DataFormat format) {
  for (const FormatName& entry : kNames)
    if (entry.format == format) return entry.name;
  FATHOM_CHECK(false, "[format_name] unknown format {}", static_cast<int>(format));
}

DetectedFormat detect_format(const std::string& path) {
  if (path.empty()) fail(ErrorKind::kConfig, "the path of the data set is empty");
  if (path.ends_with(".tar") && path.find('{') != std::string::npos && !fs::exists(path)) {
    find_shards(path);
    return {DataFormat::kWebDataset, path};
  }
  if (!fs::exists(path)) fail(ErrorKind::kConfig, "{}: no such file or folder", path);
  if (fs::is_directory(path)) return detect_in_folder(path);
  const DataFormat format = format_of_extension(path);
  if (format == DataFormat::kAuto && fs::path(path).extension() == ".json")
    return {format_of_json(path), path};
  if (format == DataFormat::kAuto)
    fail(ErrorKind::kConfig, "{}: expected a folder or a .jsonl, .json, .csv, .tsv, .tar or .txt file", path);
  return {format, path};
}

}  // namespace fathom
