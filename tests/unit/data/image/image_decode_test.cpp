// Decoding: round trips, parts of JPEGs, and everything that may be wrong with a file.
#include "data/image/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "base/file.h"
#include "data/image/encode.h"
#include "data/image/jpeg_reader.h"
#include "data/image/orientation.h"
#include "test_images.h"

namespace fathom::image_decode_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

Image decode(const std::string& content, const DecodeOptions& options = {}) {
  return decode_image(bytes_of(content), "a.jpg", options);
}

// The message of the kData error that decoding ends in, or "" where it succeeds.
std::string decode_error(const std::string& content, const DecodeOptions& options = {}) {
  try {
    decode(content, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    return error.what();
  }
  return "";
}

std::string golden_file(const std::string& name) {
  return read_file(FATHOM_GOLDENS "/image/" + name);
}

TEST(ImageDecode, PngKeepsEveryPixel) {
  const Image image = drawn_photo(37, 53);
  const Image back = decode(encode_png(image));
  EXPECT_EQ(back.height, 37);
  EXPECT_EQ(back.width, 53);
  EXPECT_EQ(back.pixels, image.pixels);
}

TEST(ImageDecode, JpegStaysClose) {
  const Image image = drawn_photo(120, 161);
  const Image fine = decode(encode_jpeg(image, 95));
  const Image coarse = decode(encode_jpeg(image, 30));
  const double fine_gap = difference(fine.pixels, image.pixels).mean;
  EXPECT_LT(fine_gap, 3.0);
  EXPECT_GT(difference(coarse.pixels, image.pixels).mean, fine_gap);
}

TEST(ImageDecode, EncodersRefuseWrongShapes) {
  Image image = drawn_photo(8, 8);
  image.width = 9;
  EXPECT_THROW(encode_png(image), Error);
  EXPECT_THROW(encode_jpeg(image), Error);
}

// ---- parts of a JPEG ----

struct PartCase {
  std::string name;
  std::string content;
};

std::vector<PartCase> part_cases() {
  const Image image = drawn_photo(203, 309);
  return {{"4:2:0", encode_jpeg(image, 80)},        {"4:4:4", encode_jpeg(image, 92)},
          {"4:2:2", golden_file("chroma_422.jpg")}, {"progressive", golden_file("progressive.jpg")},
          {"grey", golden_file("grey.jpg")},        {"inks", golden_file("cmyk.jpg")}};
}

TEST(ImageDecode, PartOfJpegEqualsWholeThenCrop) {
  Random random({5});
  for (const PartCase& part : part_cases()) {
    for (const int denominator : {1, 2, 4, 8}) {
      JpegReader whole_reader(bytes_of(part.content), part.name, {});
      const int64_t height = (whole_reader.height() + denominator - 1) / denominator;
      const int64_t width = (whole_reader.width() + denominator - 1) / denominator;
      const Image whole = whole_reader.read({0, 0, width, height}, denominator);
      for (int repeat = 0; repeat < 25; ++repeat) {
        PixelRect rect;
        rect.width = 1 + random.below(width);
        rect.height = 1 + random.below(height);
        rect.left = random.below(width - rect.width + 1);
        rect.top = random.below(height - rect.height + 1);
        JpegReader reader(bytes_of(part.content), part.name, {});
        ASSERT_EQ(reader.read(rect, denominator).pixels, crop(whole, rect).pixels)
            << part.name << " 1/" << denominator << ": " << rect.width << " x " << rect.height << " at "
            << rect.left << ", " << rect.top;
      }
    }
  }
}

TEST(ImageDecode, PartOfTruncatedJpegIsAnError) {
  const std::string content = encode_jpeg(drawn_photo(200, 200), 80);
  const std::string cut = content.substr(0, content.size() * 3 / 4);
  JpegReader reader(bytes_of(cut), "cut.jpg", {});
  EXPECT_THROW(reader.read({0, 0, 200, 20}), Error);
}

// ---- orientation ----

TEST(ImageOrientation, RectangleFollowsThePixels) {
  const Image stored = drawn_photo(23, 31);
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image upright = turn_upright(stored, orientation);
    const PixelRect rect = {3, 5, 11, 7};
    const PixelRect place = stored_rect(rect, orientation, stored.height, stored.width);
    EXPECT_EQ(turn_upright(crop(stored, place), orientation).pixels, crop(upright, rect).pixels)
        << orientation;
  }
}

TEST(ImageOrientation, BrokenExifIsUpright) {
  const std::string good("Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 28);
  EXPECT_EQ(exif_orientation(bytes_of(good)), 6);
  for (size_t length = 0; length < 26; ++length) {
    EXPECT_EQ(exif_orientation(bytes_of(good.substr(0, length))), 1) << length;
  }
  std::string nine = good;
  nine[24] = 9;
  EXPECT_EQ(exif_orientation(bytes_of(nine)), 1);
  std::string far = good;
  far[10] = '\xF0';
  EXPECT_EQ(exif_orientation(bytes_of(far)), 1);
}

// ---- bad files ----

TEST(ImageErrors, NameFileAndReason) {
  EXPECT_EQ(decode_error(""), "a.jpg: the file is empty");
  EXPECT_THAT(decode_error("\xFF\xD8"), HasSubstr("a.jpg: expected a JPEG, PNG or WebP image"));
  EXPECT_THAT(decode_error("<!DOCTYPE html><html>404"),
              AllOf(StartsWith("a.jpg: "), HasSubstr("begins with \"<!DOCTYPE html>")));
  EXPECT_THAT(decode_error("GIF89a................"), HasSubstr("a GIF file"));
  EXPECT_THAT(decode_error("\x89PNG\r\n\x1A\n"), HasSubstr("a.jpg: no PNG header"));
  EXPECT_THAT(decode_error(std::string("RIFF\x10\0\0\0WEBPVP8 \0\0", 18)), StartsWith("a.jpg: "));
}

TEST(ImageErrors, ContentTellsTheFormatNotTheName) {
  const Image image = drawn_photo(9, 9);
  EXPECT_EQ(decode(encode_png(image)).pixels, image.pixels);  // the source is called a.jpg
}

TEST(ImageErrors, MissingFileIsNamed) {
  try {
    load_image("no/such/picture.png");
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(), HasSubstr("no/such/picture.png"));
  }
}

TEST(ImageErrors, EveryTruncationIsReported) {
  const Image image = drawn_photo(150, 170);
  const std::string files[] = {encode_jpeg(image, 80),         encode_png(image),
                               golden_file("progressive.jpg"), golden_file("lossy.webp"),
                               golden_file("alpha.webp"),      golden_file("interlaced.png")};
  for (const std::string& file : files) {
    ASSERT_EQ(decode_error(file), "");
    const size_t step = file.size() > 5000 ? 97 : 13;
    for (size_t length = 0; length < file.size(); length += step) {
      EXPECT_THAT(decode_error(file.substr(0, length)), StartsWith("a.jpg: "))
          << "cut to " << length << " of " << file.size();
    }
  }
}

TEST(ImageErrors, LenientKeepsWhatIsThere) {
  const Image image = drawn_photo(150, 170);
  const std::string file = encode_jpeg(image, 90);
  const std::string cut = file.substr(0, file.size() / 2);
  EXPECT_THAT(decode_error(cut), HasSubstr("Premature end"));
  const Image partial = decode(cut, {.strict = false});
  ASSERT_EQ(partial.pixels.size(), image.pixels.size());
  EXPECT_LT(difference(crop(partial, {0, 0, 170, 40}).pixels, crop(image, {0, 0, 170, 40}).pixels).mean, 4.0);
}

TEST(ImageErrors, DamagedDataIsReported) {
  std::string png = encode_png(drawn_photo(60, 60));
  png[png.size() / 2] ^= 0x55;
  EXPECT_THAT(decode_error(png), StartsWith("a.jpg: "));
  std::string jpeg = encode_jpeg(drawn_photo(60, 60));
  jpeg[2] = '\x00';
  EXPECT_NE(decode_error(jpeg), "");
}

// ---- size limits ----

// A file whose header claims 50,000 × 50,000 pixels.
std::string huge(const std::string& format) {
  const Image image = drawn_photo(16, 16);
  if (format == "png") {
    std::string file = encode_png(image);
    const std::string side("\x00\x00\xC3\x50", 4);
    return file.replace(16, 4, side).replace(20, 4, side);
  }
  std::string file = encode_jpeg(image);
  const size_t frame = file.find("\xFF\xC0");
  return file.replace(frame + 5, 4, std::string("\xC3\x50\xC3\x50", 4));
}

TEST(ImageLimits, HugeHeaderIsRefusedBeforeDecoding) {
  for (const std::string format : {"png", "jpeg"}) {
    EXPECT_THAT(decode_error(huge(format)), HasSubstr("50000 x 50000 pixels are more than the limit"))
        << format;
    EXPECT_THROW(read_image_header(bytes_of(huge(format)), "huge"), Error) << format;
  }
}

TEST(ImageLimits, LimitIsExact) {
  const std::string files[] = {encode_png(drawn_photo(22, 37)), encode_jpeg(drawn_photo(22, 37)),
                               golden_file("lossy.webp")};
  for (const std::string& file : files) {
    EXPECT_EQ(decode_error(file, {.max_pixels = 22 * 37}), "");
    EXPECT_THAT(decode_error(file, {.max_pixels = 22 * 37 - 1}), HasSubstr("37 x 22"));
  }
}

}  // namespace
}  // namespace fathom::image_decode_test
