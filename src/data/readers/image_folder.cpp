// Folders of images: with captions in a text file beside each, or one folder a class.
#include <algorithm>
#include <cctype>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "data/readers/reading.h"
#include "data/readers/text_lines.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

bool is_image(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png" || extension == ".webp";
}

Record image_record(const std::string& path, const std::string& folder) {
  Record record;
  record.image_path = path;
  record.source = path;
  record.id = fs::path(path).lexically_relative(folder).string();
  return record;
}

/// Non-empty lines of a caption file.
std::vector<std::string> read_captions(const std::string& path) {
  if (!fs::exists(path)) fail(ErrorKind::kData, "no captions: {} does not exist", path);
  const std::string text = read_file(path, uint64_t{16} << 20);
  std::vector<std::string> captions;
  LineReader lines(text);
  while (const auto line = lines.next()) {
    if (const auto offset = find_invalid_utf8(line->text))
      fail(ErrorKind::kData, "{}:{}: byte {}: not valid UTF-8", path, line->number, *offset + 1);
    if (line->text.find_first_not_of(" \t") != std::string_view::npos) captions.emplace_back(line->text);
  }
  if (captions.empty()) fail(ErrorKind::kData, "no captions: {} is empty", path);
  return captions;
}

/// Under `path`, the subfolder of the split if one is asked for and exists.
std::string split_folder(const Reading& reading) {
  const fs::path inner = fs::path(reading.path()) / reading.config().split;
  return !reading.config().split.empty() && fs::is_directory(inner) ? inner.string() : reading.path();
}

/// "train" for a file below PATH/train when splits are folders; empty otherwise.
std::string split_of(const Reading& reading, const std::string& folder) {
  return folder == reading.path() ? "" : reading.config().split;
}

}  // namespace

std::vector<std::string> find_images(const std::string& folder) {
  std::vector<std::string> found;
  auto walk = fs::recursive_directory_iterator(folder, fs::directory_options::follow_directory_symlink);
  for (auto place = fs::begin(walk); place != fs::end(walk); ++place) {
    const bool hidden = place->path().filename().string().starts_with('.');
    if (hidden && place->is_directory()) place.disable_recursion_pending();
    if (!hidden && place->is_regular_file() && is_image(place->path()))
      found.push_back(place->path().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void read_image_captions(Reading& reading) {
  const std::string folder = split_folder(reading);
  const auto images = find_images(folder);
  const auto side_car = [](const std::string& image) {
    return fs::path(image).replace_extension(".txt").string();
  };
  const bool any = std::any_of(images.begin(), images.end(),
                               [&](const auto& image) { return fs::exists(side_car(image)); });
  for (const std::string& image : images) {
    if (reading.full()) return;
    reading.attempt(image, [&] {
      Record record = image_record(image, reading.path());
      if (any) record.captions = read_captions(side_car(image));
      reading.accept(std::move(record), split_of(reading, folder));
    });
  }
}

void read_image_classes(Reading& reading) {
  const std::string folder = split_folder(reading);
  for (const std::string& image : find_images(folder)) {
    if (reading.full()) return;
    reading.attempt(image, [&] {
      Record record = image_record(image, reading.path());
      const fs::path inner = fs::path(image).lexically_relative(folder).parent_path();
      if (inner.empty()) fail(ErrorKind::kData, "lies in no class folder");
      record.label = inner.begin()->string();
      reading.accept(std::move(record), split_of(reading, folder));
    });
  }
}

}  // namespace fathom
