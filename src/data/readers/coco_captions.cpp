// COCO captions: "images" with id and file_name, "annotations" with image_id and caption.
#include <cstdint>
#include <filesystem>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "data/readers/json_lists.h"
#include "data/readers/reading.h"
#include "data/readers/record_builder.h"

namespace fathom {
namespace {

struct Picture {
  std::string file_name;
  std::vector<std::string> captions;
  int64_t place = 0;
};

struct Caption {
  int64_t image_id = 0;
  std::string text;
  int64_t place = 0;
};

/// What a file holds, before both lists are joined: either may come first.
struct CocoFile {
  std::vector<Picture> pictures;
  std::unordered_map<int64_t, size_t> by_id;
  std::vector<Caption> captions;
};

std::string place_in(const Reading& reading, const char* list, int64_t index) {
  return fmt::format("{}: {}[{}]", reading.path(), list, index);
}

void read_picture(CocoFile& file, int64_t place, const Json& item) {
  if (!item.is_object()) fail(ErrorKind::kData, "expected an object, got {}", item.kind_name());
  const int64_t id = item.at("id").as_int();
  const std::string& name = item.at("file_name").as_string();
  if (name.empty()) fail(ErrorKind::kData, "\"file_name\" is empty");
  if (!file.by_id.emplace(id, file.pictures.size()).second)
    fail(ErrorKind::kData, "image {} is there twice", id);
  file.pictures.push_back({name, {}, place});
}

void read_caption(CocoFile& file, int64_t place, const Json& item) {
  if (!item.is_object()) fail(ErrorKind::kData, "expected an object, got {}", item.kind_name());
  const std::string& text = item.at("caption").as_string();
  if (text.empty()) fail(ErrorKind::kData, "\"caption\" is empty");
  file.captions.push_back({item.at("image_id").as_int(), text, place});
}

CocoFile read_lists(Reading& reading) {
  const MappedFile content(reading.path());
  CocoFile file;
  bool has_images = false;
  const auto reader_of = [&](const char* list, auto read) {
    return [&, list, read](int64_t index, const Json& item) {
      reading.attempt(place_in(reading, list, index), [&] { read(file, index, item); });
    };
  };
  read_json_lists(content.text(), reading.path(),
                  {{"images",
                    [&, read = reader_of("images", read_picture)](int64_t index, const Json& item) {
                      has_images = true;
                      read(index, item);
                    }},
                   {"annotations", reader_of("annotations", read_caption)}});
  if (!has_images)
    fail(ErrorKind::kData, "{}: no \"images\": is it a file of COCO captions?", reading.path());
  return file;
}

}  // namespace

void read_coco_captions(Reading& reading) {
  CocoFile file = read_lists(reading);
  for (const Caption& caption : file.captions)
    reading.attempt(place_in(reading, "annotations", caption.place), [&] {
      const auto picture = file.by_id.find(caption.image_id);
      if (picture == file.by_id.end())
        fail(ErrorKind::kData, "image_id {} is not among the images", caption.image_id);
      file.pictures[picture->second].captions.push_back(caption.text);
    });
  const bool has_captions = !file.captions.empty();
  for (Picture& picture : file.pictures) {
    if (reading.full()) return;
    const std::string source = place_in(reading, "images", picture.place);
    reading.attempt(source, [&] {
      if (has_captions && picture.captions.empty())
        fail(ErrorKind::kData, "{}: no caption", picture.file_name);
      Record record;
      record.id = picture.file_name;
      record.image_path = reading.picture_path(picture.file_name);
      record.captions = std::move(picture.captions);
      record.source = source;
      reading.accept(std::move(record), "");
    });
  }
}

}  // namespace fathom
