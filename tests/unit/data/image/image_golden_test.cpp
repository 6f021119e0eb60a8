// Decoding and resizing against Pillow, colour against torchvision (tests/golden/image*_golden.py).
#include <gtest/gtest.h>

#include <string>

#include "base/file.h"
#include "base/json.h"
#include "data/image/colour.h"
#include "data/image/decode.h"
#include "data/image/resize.h"
#include "test_images.h"

namespace fathom::image_golden_test {
namespace {

const std::string kFolder = FATHOM_GOLDENS "/image/";

Json golden_index() {
  return parse_json(read_file(kFolder + "index.json"), "index.json");
}

Image golden_pixels(const std::string& file, const Json& size) {
  const std::string content = read_file(kFolder + file);
  Image image = {size.at("height").as_int(), size.at("width").as_int(), {}};
  image.pixels.assign(content.begin(), content.end());
  return image;
}

TEST(ImageGolden, DecodesAsPillow) {
  const Json index = golden_index();
  ASSERT_GE(index.at("decode").as_array().size(), 25u);
  for (const Json& entry : index.at("decode").as_array()) {
    const std::string file = entry.at("file").as_string();
    const Image expected = golden_pixels(file + ".rgb", entry);
    const Image image = load_image(kFolder + file);
    EXPECT_EQ(image.height, expected.height) << file;
    EXPECT_EQ(image.width, expected.width) << file;
    // Two versions of one codec may round apart; a wrong turn or channel order is far larger.
    const Difference gap = difference(image.pixels, expected.pixels);
    const bool lossless = file.ends_with(".png") || file == "alpha.webp" || file == "exif_8.webp";
    EXPECT_LE(gap.mean, lossless ? 0.0 : 0.05) << file;
    EXPECT_LE(gap.largest, lossless ? 0 : 2) << file;
  }
}

TEST(ImageGolden, HeaderAgreesWithPixels) {
  const Json index = golden_index();
  for (const Json& entry : index.at("decode").as_array()) {
    const std::string file = entry.at("file").as_string();
    const std::string content = read_file(kFolder + file);
    const ImageHeader header = read_image_header(bytes_of(content), file);
    EXPECT_EQ(header.height, entry.at("height").as_int()) << file;
    EXPECT_EQ(header.width, entry.at("width").as_int()) << file;
    if (file.starts_with("exif_")) {
      EXPECT_EQ(header.orientation, file[5] - '0') << file;
    }
  }
}

TEST(ImageGolden, ResizesExactlyAsPillow) {
  const Json index = golden_index();
  ASSERT_GE(index.at("resize").as_array().size(), 16u);
  for (const Json& entry : index.at("resize").as_array()) {
    const std::string source = entry.at("source").as_string();
    const Image image = golden_pixels(source + ".rgb", index.at("sources").at(source));
    const Image expected = golden_pixels(entry.at("file").as_string(), entry);
    const Filter filter = entry.at("filter").as_string() == "bilinear" ? Filter::kBilinear : Filter::kBicubic;
    Box box = {0, 0, static_cast<double>(image.width), static_cast<double>(image.height)};
    if (const Json& given = entry.at("box"); !given.is_null()) {
      const Json::Array& sides = given.as_array();
      box = {sides[0].as_double(), sides[1].as_double(), sides[2].as_double(), sides[3].as_double()};
    }
    const Image result = resize(image, expected.height, expected.width, filter, box);
    EXPECT_EQ(result.pixels, expected.pixels) << entry.at("file").as_string() << ", largest gap "
                                              << difference(result.pixels, expected.pixels).largest;
  }
}

ColourOp op_named(const std::string& name) {
  if (name == "brightness") return ColourOp::kBrightness;
  if (name == "contrast") return ColourOp::kContrast;
  return name == "saturation" ? ColourOp::kSaturation : ColourOp::kHue;
}

TEST(ImageGolden, ColoursAsTorchvision) {
  const Json record = parse_json(read_file(kFolder + "colour.json"), "colour.json");
  PlanarImage source = {record.at("height").as_int(), record.at("width").as_int(), {}};
  for (const Json& value : record.at("pixels").as_array()) {
    source.pixels.push_back(static_cast<uint8_t>(value.as_int()));
  }
  ASSERT_EQ(record.at("cases").as_array().size(), 12u);
  for (const Json& entry : record.at("cases").as_array()) {
    ColourPlan plan;
    for (const Json& step : entry.at("steps").as_array()) {
      plan.add(op_named(step.at("op").as_string()), step.at("amount").as_double());
    }
    PlanarImage image = source;
    apply_colour(image, plan);
    for (size_t i = 0; i < image.pixels.size(); ++i) {
      ASSERT_NEAR(image.pixels[i], entry.at("values").as_array()[i].as_double(), 0.502)
          << entry.at("steps").as_array()[0].at("op").as_string() << " at " << i;
    }
  }
}

}  // namespace
}  // namespace fathom::image_golden_test
