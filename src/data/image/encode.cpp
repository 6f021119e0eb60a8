#include "data/image/encode.h"

#include <cstdio>  // jpeglib.h needs FILE

#include <jpeglib.h>
#include <png.h>

#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "data/image/longjmp_guard.h"

namespace fathom {

namespace {

constexpr int kFullChromaQuality = 90;

void check_shape(const Image& image) {
  FATHOM_CHECK(image.height > 0 && image.width > 0 &&
                   image.pixels.size() == static_cast<size_t>(image.height * image.width * 3),
               "[encode] expected {} x {} x 3 bytes, got {}", image.height, image.width, image.pixels.size());
}

// libjpeg's state for one file.
class JpegWriter {
 public:
  JpegWriter() {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = &guard_;
    errors_.error_exit = [](j_common_ptr info) {
      auto& guard = *static_cast<LongjmpGuard*>(info->client_data);
      info->err->format_message(info, guard.message());
      guard.jump();
    };
  }
  ~JpegWriter() {
    jpeg_destroy_compress(&info_);
    std::free(buffer_);
  }
  JpegWriter(const JpegWriter&) = delete;
  JpegWriter& operator=(const JpegWriter&) = delete;

  std::string write(const Image& image, int quality) {
    guard_.run("encode_jpeg", [&] {
      jpeg_create_compress(&info_);
      jpeg_mem_dest(&info_, &buffer_, &buffer_bytes_);
      configure(image, quality);
      jpeg_start_compress(&info_, TRUE);
      while (info_.next_scanline < info_.image_height) {
        const uint8_t* row = image.pixels.data() + int64_t{info_.next_scanline} * image.width * 3;
        auto sample_row = const_cast<JSAMPROW>(row);
        jpeg_write_scanlines(&info_, &sample_row, 1);
      }
      jpeg_finish_compress(&info_);
    });
    return {reinterpret_cast<const char*>(buffer_), buffer_bytes_};
  }

 private:
  void configure(const Image& image, int quality) {
    info_.image_width = static_cast<JDIMENSION>(image.width);
    info_.image_height = static_cast<JDIMENSION>(image.height);
    info_.input_components = 3;
    info_.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info_);
    jpeg_set_quality(&info_, quality, TRUE);
    const int luma_sampling = quality >= kFullChromaQuality ? 1 : 2;
    info_.comp_info[0].h_samp_factor = luma_sampling;
    info_.comp_info[0].v_samp_factor = luma_sampling;
  }

  jpeg_compress_struct info_{};
  jpeg_error_mgr errors_{};
  LongjmpGuard guard_;
  unsigned char* buffer_ = nullptr;
  unsigned long buffer_bytes_ = 0;
};

}  // namespace

std::string encode_png(const Image& image) {
  check_shape(image);
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(image.width);
  header.height = static_cast<png_uint_32>(image.height);
  header.format = PNG_FORMAT_RGB;
  std::string bytes(PNG_IMAGE_PNG_SIZE_MAX(header), '\0');
  png_alloc_size_t size = bytes.size();
  const int written =
      png_image_write_to_memory(&header, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr);
  FATHOM_CHECK(written, "[encode_png] {}", header.message);
  bytes.resize(size);
  return bytes;
}

std::string encode_jpeg(const Image& image, int quality) {
  check_shape(image);
  return JpegWriter().write(image, quality);
}

}  // namespace fathom
