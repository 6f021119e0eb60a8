#include "batch/collate.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace fathom {
namespace {

void check_rows(const char* what, size_t got, size_t expected) {
  FATHOM_CHECK(got == expected, "[collate] expected {} {} in every sample, got {}", expected, what, got);
}

at::Tensor stack_indices(std::span<const Sample> samples) {
  at::Tensor out = at::empty({static_cast<int64_t>(samples.size())}, at::kLong);
  int64_t* data = out.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < samples.size(); ++i) data[i] = samples[i].index;
  return out;
}

/// As many numbers of each sample: [K·B].
at::Tensor stack_numbers(std::span<const Sample> samples, std::vector<int64_t> Sample::*numbers,
                         const char* what) {
  const size_t each = (samples.front().*numbers).size();
  at::Tensor out = at::empty({static_cast<int64_t>(samples.size() * each)}, at::kLong);
  int64_t* data = out.mutable_data_ptr<int64_t>();
  for (const Sample& sample : samples) {
    check_rows(what, (sample.*numbers).size(), each);
    data = std::copy((sample.*numbers).begin(), (sample.*numbers).end(), data);
  }
  return out;
}

/// The first sample that has the modality. REQUIRES one.
template <typename HasModality>
const Sample& first_with(std::span<const Sample> samples, const HasModality& has) {
  return *std::find_if(samples.begin(), samples.end(), has);
}

bool has_image(const Sample& sample) {
  return !sample.images.empty();
}
bool has_sound(const Sample& sample) {
  return sample.spectrogram.has_value();
}
bool has_text(const Sample& sample) {
  return !sample.token_rows.empty();
}

at::Tensor stack_images(std::span<const Sample> samples) {
  const Sample& first = first_with(samples, has_image);
  const size_t num_views = first.images.size();
  const int64_t height = first.images[0].height;
  const int64_t width = first.images[0].width;
  const int64_t bytes = height * width * 3;
  at::Tensor out = at::empty({static_cast<int64_t>(samples.size() * num_views), height, width, 3}, at::kByte);
  uint8_t* data = out.mutable_data_ptr<uint8_t>();
  for (const Sample& sample : samples) {
    if (!has_image(sample)) {
      std::memset(data, 0, num_views * static_cast<size_t>(bytes));
      data += num_views * static_cast<size_t>(bytes);
      continue;
    }
    check_rows("views", sample.images.size(), num_views);
    for (const Image& image : sample.images) {
      FATHOM_CHECK(image.height == height && image.width == width &&
                       static_cast<int64_t>(image.pixels.size()) == bytes,
                   "[collate] expected {} × {} images, got {} × {} ({})", height, width, image.height,
                   image.width, sample.record.source);
      std::memcpy(data, image.pixels.data(), static_cast<size_t>(bytes));
      data += bytes;
    }
  }
  return out.permute({0, 3, 1, 2});
}

int64_t padded_length(std::span<const Sample> samples, const CollateConfig& config) {
  int64_t longest = 1;
  for (const Sample& sample : samples)
    for (const auto& row : sample.token_rows) longest = std::max(longest, static_cast<int64_t>(row.size()));
  if (config.pad_to == 0)
    return (longest + config.pad_multiple - 1) / config.pad_multiple * config.pad_multiple;
  FATHOM_CHECK(longest <= config.pad_to, "[collate] expected at most {} tokens, got {}", config.pad_to,
               longest);
  return config.pad_to;
}

void stack_tokens(std::span<const Sample> samples, const CollateConfig& config, Batch& batch) {
  const size_t rows_each = first_with(samples, has_text).token_rows.size();
  const int64_t num_rows = static_cast<int64_t>(samples.size() * rows_each);
  const int64_t length = padded_length(samples, config);
  batch.tokens_BT = at::full({num_rows, length}, config.padding_id, at::kLong);
  batch.length_B = at::zeros({num_rows}, at::kLong);
  int64_t* tokens = batch.tokens_BT.mutable_data_ptr<int64_t>();
  int64_t* lengths = batch.length_B.mutable_data_ptr<int64_t>();
  for (const Sample& sample : samples) {
    if (!has_text(sample)) {
      tokens += length * static_cast<int64_t>(rows_each);
      lengths += rows_each;
      continue;
    }
    check_rows("sentences", sample.token_rows.size(), rows_each);
    for (const auto& row : sample.token_rows) {
      std::copy(row.begin(), row.end(), tokens);
      tokens += length;
      *lengths++ = static_cast<int64_t>(row.size());
    }
  }
}

/// One number for each of a row's tokens but the last, −1 behind them.
at::Tensor stack_numbers(std::span<const Sample> samples, std::vector<int32_t> Sample::*numbers,
                         int64_t length) {
  at::Tensor out = at::full({static_cast<int64_t>(samples.size()), length}, -1, at::kLong);
  int64_t* data = out.mutable_data_ptr<int64_t>();
  for (const Sample& sample : samples) {
    const std::vector<int32_t>& row = sample.*numbers;
    check_rows("targets and segments", row.size(), sample.token_rows.front().size() - 1);
    std::copy(row.begin(), row.end(), data);
    data += length;
  }
  return out;
}

void stack_spectrograms(std::span<const Sample> samples, const CollateConfig& config, Batch& batch) {
  const int64_t bands = first_with(samples, has_sound).spectrogram->num_bands,
                count = static_cast<int64_t>(samples.size());
  int64_t longest = 1;
  for (const Sample& sample : samples)
    if (has_sound(sample)) longest = std::max(longest, sample.spectrogram->num_frames);
  FATHOM_CHECK(config.pad_frames_to == 0 || longest <= config.pad_frames_to,
               "[collate] expected at most {} frames, got {}", config.pad_frames_to, longest);
  if (config.pad_frames_to > 0) longest = config.pad_frames_to;
  batch.mel_BFS = at::zeros({count, bands, longest}, at::kFloat);
  batch.frames_B = at::zeros({count}, at::kLong);
  float* row = batch.mel_BFS.mutable_data_ptr<float>();
  int64_t* frames = batch.frames_B.mutable_data_ptr<int64_t>();
  for (const Sample& sample : samples) {
    if (!has_sound(sample)) {
      row += bands * longest;
      ++frames;
      continue;
    }
    const Spectrogram& clip = *sample.spectrogram;
    FATHOM_CHECK(clip.num_bands == bands, "[collate] expected {} mel bands, got {} ({})", bands,
                 clip.num_bands, sample.record.source);
    *frames++ = clip.num_frames;
    for (int64_t band = 0; band < bands; ++band, row += longest)
      std::copy_n(clip.values.data() + band * clip.num_frames, clip.num_frames, row);
  }
}

/// True if all samples have it, false if none; anything else is a contract broken by the source.
template <typename HasModality>
bool present(std::span<const Sample> samples, const char* modality, const HasModality& has) {
  const auto count = std::count_if(samples.begin(), samples.end(), has);
  FATHOM_CHECK(count == 0 || count == static_cast<int64_t>(samples.size()),
               "[collate] expected {} in every sample, got it in {} of {}", modality, count, samples.size());
  return count > 0;
}

/// The same of a modality that some samples may lack: `has_B` says which have it, unless all do.
template <typename HasModality>
bool present(std::span<const Sample> samples, const char* modality, const HasModality& has, bool missing,
             at::Tensor& has_B) {
  if (!missing) return present(samples, modality, has);
  const auto count = std::count_if(samples.begin(), samples.end(), has);
  if (count == 0 || count == static_cast<int64_t>(samples.size())) return count > 0;
  has_B = at::empty({static_cast<int64_t>(samples.size())}, at::kBool);
  std::transform(samples.begin(), samples.end(), has_B.mutable_data_ptr<bool>(), has);
  return true;
}

}  // namespace

Batch collate(std::span<const Sample> samples, const CollateConfig& config) {
  FATHOM_CHECK(!samples.empty(), "[collate] expected at least one sample, got none");
  Batch batch;
  batch.index_B = stack_indices(samples);
  batch.label_B = stack_numbers(samples, &Sample::labels, "labels");
  if (present(samples, "an image", has_image, config.missing, batch.has_image_B))
    batch.image_BCHW = stack_images(samples);
  if (present(samples, "sound", has_sound, config.missing, batch.has_sound_B))
    stack_spectrograms(samples, config, batch);
  if (present(samples, "tokens", has_text, config.missing, batch.has_text_B))
    stack_tokens(samples, config, batch);
  if (present(samples, "a question", [](const Sample& sample) { return !sample.prompt_lengths.empty(); }))
    batch.prompt_length_B = stack_numbers(samples, &Sample::prompt_lengths, "questions");
  if (present(samples, "targets", [](const Sample& sample) { return !sample.targets.empty(); }))
    batch.target_BT = stack_numbers(samples, &Sample::targets, batch.tokens_BT.size(1) - 1);
  if (present(samples, "segments", [](const Sample& sample) { return !sample.segments.empty(); }))
    batch.segment_BT = stack_numbers(samples, &Sample::segments, batch.tokens_BT.size(1) - 1);
  return batch;
}

Batch to_device(Batch batch, at::Device device, const PixelStatistics& pixels) {
  for (at::Tensor* tensor : batch.tensors())
    if (tensor->defined()) *tensor = tensor->to(device, /*non_blocking=*/true);
  if (!batch.image_BCHW.defined() || batch.image_BCHW.scalar_type() != at::kByte) return batch;
  at::Tensor normalised = at::empty(batch.image_BCHW.sizes(), at::TensorOptions(device).dtype(at::kFloat));
  normalised.copy_(batch.image_BCHW);
  for (int64_t c = 0; c < 3; ++c) {
    const double mean = pixels.mean[static_cast<size_t>(c)];
    const double deviation = pixels.deviation[static_cast<size_t>(c)];
    normalised.select(1, c).mul_(1.0 / (255.0 * deviation)).sub_(mean / deviation);
  }
  batch.image_BCHW = normalised;
  return batch;
}

Batch slice_batch(const Batch& batch, int64_t start, int64_t count) {
  FATHOM_CHECK(start >= 0 && count >= 1 && start + count <= batch.size(),
               "[slice_batch] expected rows within {}, got {} from {}", batch.size(), count, start);
  const auto cut = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    const int64_t rows_each = tensor.size(0) / batch.size();
    return tensor.narrow(0, start * rows_each, count * rows_each);
  };
  return {.index_B = cut(batch.index_B),
          .image_BCHW = cut(batch.image_BCHW),
          .mel_BFS = cut(batch.mel_BFS),
          .frames_B = cut(batch.frames_B),
          .tokens_BT = cut(batch.tokens_BT),
          .length_B = cut(batch.length_B),
          .has_image_B = cut(batch.has_image_B),
          .has_sound_B = cut(batch.has_sound_B),
          .has_text_B = cut(batch.has_text_B),
          .label_B = cut(batch.label_B),
          .prompt_length_B = cut(batch.prompt_length_B),
          .target_BT = cut(batch.target_BT),
          .segment_BT = cut(batch.segment_BT)};
}

}  // namespace fathom
