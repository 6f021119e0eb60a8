#include "data/image/resample.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "data/image/resample_kernels.h"
#include "data/image/resample_weights.h"

namespace fathom {

namespace {

// The source rows that an axis reads.
struct RowRange {
  int64_t begin;
  int64_t end;
};

RowRange rows_read(const ResampleWeights& weights, int64_t source_size) {
  const auto [lowest, highest] = std::minmax_element(weights.first.begin(), weights.first.end());
  return {*lowest, std::min(*highest + weights.num_taps, source_size)};
}

// First pass: `rows` of the source to rows of three planes of the target's width, one after the other.
std::vector<uint8_t> resample_rows(const PixelView& source, const RowRange& rows,
                                   const ResampleWeights& weights) {
  const int64_t in_bytes = source.width * 3;
  const int64_t scratch_stride = in_bytes + weights.num_taps * 3 + kRowSlack;
  const int64_t out_bytes = weights.size() * 3;
  const int64_t num_rows = rows.end - rows.begin;
  // Rows come in groups; the last group may be incomplete and writes past `num_rows`.
  const int64_t padded_rows = (num_rows + kRowGroup - 1) / kRowGroup * kRowGroup;
  std::vector<uint8_t> scratch(static_cast<size_t>(kRowGroup * scratch_stride));
  std::vector<uint32_t> pixels(static_cast<size_t>(kRowGroup * weights.size()));
  std::vector<uint8_t> result(static_cast<size_t>(padded_rows * out_bytes + kRowSlack));
  for (int64_t y = 0; y < num_rows; y += kRowGroup) {
    HorizontalRows group;
    for (int64_t r = 0; r < kRowGroup; ++r) {
      uint8_t* row = scratch.data() + r * scratch_stride;
      std::copy_n(source.row(rows.begin + std::min(y + r, num_rows - 1)), in_bytes, row);
      group.in[r] = row;
      group.scratch[r] = pixels.data() + r * weights.size();
      group.out[r] = result.data() + (y + r) * out_bytes;
    }
    resample_kernels().horizontal(group, weights);
  }
  return result;
}

// Second pass: down the columns, and apart into planes.
PlanarImage resample_columns(const std::vector<uint8_t>& rows, int64_t num_rows,
                             const ResampleWeights& weights, int64_t width) {
  PlanarImage result = {weights.size(), width, {}};
  result.pixels.resize(static_cast<size_t>(3 * weights.size() * width));
  std::vector<uint8_t> row(static_cast<size_t>(3 * width));
  const VerticalRow job = {rows.data(), 3 * width, num_rows, 3 * width, row.data()};
  for (int64_t y = 0; y < weights.size(); ++y) {
    resample_kernels().vertical(job, weights, y);
    for (int64_t channel = 0; channel < 3; ++channel) {
      std::copy_n(row.data() + channel * width, width, result.plane(channel) + y * width);
    }
  }
  return result;
}

}  // namespace

Image interleave(const PlanarImage& planes) {
  Image image = blank_image(planes.height, planes.width);
  const uint8_t* red = planes.plane(0);
  const uint8_t* green = planes.plane(1);
  const uint8_t* blue = planes.plane(2);
  uint8_t* out = image.pixels.data();
  for (int64_t i = 0; i < planes.height * planes.width; ++i) {
    out[3 * i] = red[i];
    out[3 * i + 1] = green[i];
    out[3 * i + 2] = blue[i];
  }
  return image;
}

PlanarImage resample(const PixelView& source, const Box& box, const ResampleTarget& target) {
  FATHOM_CHECK(target.height > 0 && target.width > 0, "[resize] expected a positive size, got {} x {}",
               target.height, target.width);
  FATHOM_CHECK(box.left >= 0 && box.top >= 0 && box.left < box.right && box.top < box.bottom &&
                   box.right <= static_cast<double>(source.width) &&
                   box.bottom <= static_cast<double>(source.height),
               "[resize] expected a box inside {} x {}, got [{}, {}) x [{}, {})", source.width, source.height,
               box.left, box.right, box.top, box.bottom);
  ResampleWeights across = make_weights({source.width, box.left, box.right, target.width}, target.filter);
  if (target.mirror) mirror(across);
  ResampleWeights down = make_weights({source.height, box.top, box.bottom, target.height}, target.filter);
  const RowRange rows = rows_read(down, source.height);
  for (int32_t& first : down.first) first -= static_cast<int32_t>(rows.begin);
  return resample_columns(resample_rows(source, rows, across), rows.end - rows.begin, down, target.width);
}

Image resize(const Image& image, int64_t height, int64_t width, Filter filter) {
  const Box whole = {0, 0, static_cast<double>(image.width), static_cast<double>(image.height)};
  return resize(image, height, width, filter, whole);
}

Image resize(const Image& image, int64_t height, int64_t width, Filter filter, const Box& box) {
  return interleave(resample(view_of(image), box, {height, width, filter}));
}

}  // namespace fathom
