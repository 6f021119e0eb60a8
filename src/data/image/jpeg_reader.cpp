#include "data/image/jpeg_reader.h"

#include <cstdio>  // jpeglib.h needs FILE

#include <jpeglib.h>

#include <jerror.h>

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "data/image/longjmp_guard.h"
#include "data/image/orientation.h"

namespace fathom {

namespace {

// A progressive file may repeat scans without end; cameras write some ten.
constexpr int kMaxScans = 500;

// Columns beside a crop that the chroma upsampling looks at; a block more on either side is enough.
constexpr int64_t kColumnMargin = 16;

bool harmless(int warning) {
  return warning == JWRN_EXTRANEOUS_DATA || warning == JWRN_JFIF_MAJOR || warning == JWRN_ADOBE_XFORM ||
         warning == JWRN_BOGUS_ICC;
}

}  // namespace

struct JpegReader::State {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  LongjmpGuard guard;
  std::string source;
  bool strict = true;

  static State& of(j_common_ptr info) { return *static_cast<State*>(info->client_data); }

  static void on_error(j_common_ptr info) {
    State& state = of(info);
    info->err->format_message(info, state.guard.message());
    state.guard.jump();
  }

  static void on_message(j_common_ptr info, int level) {
    if (level < 0 && of(info).strict && !harmless(info->err->msg_code)) on_error(info);
  }

  static void on_progress(j_common_ptr info) {
    if (of(info).info.input_scan_number > kMaxScans) of(info).guard.jump("too many scans");
  }

  ~State() { jpeg_destroy_decompress(&info); }
};

JpegReader::JpegReader(std::span<const std::byte> bytes, const std::string& source,
                       const DecodeOptions& options)
    : state_(std::make_unique<State>()) {
  state_->source = source;
  state_->strict = options.strict;
  jpeg_decompress_struct& info = state_->info;
  info.err = jpeg_std_error(&state_->errors);
  info.client_data = state_.get();
  state_->errors.error_exit = State::on_error;
  state_->errors.emit_message = State::on_message;
  state_->progress.progress_monitor = State::on_progress;
  state_->guard.run(source, [&] {
    jpeg_create_decompress(&info);
    info.progress = &state_->progress;
    jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&info, TRUE);
  });
}

JpegReader::~JpegReader() = default;

int64_t JpegReader::height() const {
  return state_->info.image_height;
}

int64_t JpegReader::width() const {
  return state_->info.image_width;
}

int JpegReader::orientation() const {
  for (jpeg_saved_marker_ptr marker = state_->info.marker_list; marker; marker = marker->next) {
    const std::span data(reinterpret_cast<const std::byte*>(marker->data), marker->data_length);
    const std::string_view text(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (text.starts_with("Exif")) return exif_orientation(data);
  }
  return 1;
}

Image JpegReader::read(const PixelRect& rect, int denominator) {
  start(denominator);
  Image image = blank_image(rect.height, rect.width);
  const int64_t column = narrow_columns(rect);
  read_rows(rect, column, image.pixels.data());
  finish();
  return image;
}

void JpegReader::start(int denominator) {
  jpeg_decompress_struct& info = state_->info;
  const bool inks = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  state_->guard.run(state_->source, [&] {
    info.out_color_space = inks ? JCS_CMYK : JCS_RGB;
    info.scale_num = 1;
    info.scale_denom = static_cast<unsigned>(denominator);
    jpeg_start_decompress(&info);
  });
}

// Leaves out the blocks to the left and right of `rect`; returns its first column in the narrower rows.
int64_t JpegReader::narrow_columns(const PixelRect& rect) {
  jpeg_decompress_struct& info = state_->info;
  const int64_t full_width = info.output_width;
  const int64_t left = std::max<int64_t>(rect.left - kColumnMargin, 0);
  const int64_t right = std::min<int64_t>(rect.left + rect.width + kColumnMargin, full_width);
  if (left == 0 && right == full_width) return rect.left;
  auto offset = static_cast<JDIMENSION>(left);
  auto width = static_cast<JDIMENSION>(right - left);
  state_->guard.run(state_->source, [&] { jpeg_crop_scanline(&info, &offset, &width); });
  return rect.left - offset;
}

void JpegReader::read_rows(const PixelRect& rect, int64_t column, uint8_t* pixels) {
  jpeg_decompress_struct& info = state_->info;
  const bool inks = info.out_color_space == JCS_CMYK;
  const bool direct = !inks && info.output_width == rect.width;
  std::vector<uint8_t> scratch(direct ? 0 : size_t{info.output_width} * info.output_components);
  state_->guard.run(state_->source, [&] {
    if (rect.top > 0) jpeg_skip_scanlines(&info, static_cast<JDIMENSION>(rect.top));
    for (int64_t y = 0; y < rect.height; ++y) {
      uint8_t* out = pixels + y * rect.width * 3;
      JSAMPROW row = direct ? out : scratch.data();
      jpeg_read_scanlines(&info, &row, 1);
      if (inks) {
        cmyk_to_rgb(row + column * 4, rect.width, info.saw_Adobe_marker, out);
      } else if (!direct) {
        std::copy_n(row + column * 3, rect.width * 3, out);
      }
    }
  });
}

// Entropy-coded data never holds FF D9 by chance, so the end-of-image marker in what was not read shows that
// the file is whole.
void JpegReader::finish() {
  jpeg_decompress_struct& info = state_->info;
  if (info.output_scanline == info.output_height) {
    state_->guard.run(state_->source, [&] { jpeg_finish_decompress(&info); });
    return;
  }
  const std::string_view rest(reinterpret_cast<const char*>(info.src->next_input_byte),
                              info.src->bytes_in_buffer);
  const bool whole = jpeg_input_complete(&info) || info.unread_marker == JPEG_EOI ||
                     rest.rfind("\xFF\xD9") != std::string_view::npos;
  if (state_->strict && !whole) fail(ErrorKind::kData, "{}: Premature end of JPEG file", state_->source);
}

}  // namespace fathom
