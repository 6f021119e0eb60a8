// A batch: what a task's loss sees. Made from samples on worker threads, moved to the device once.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace fathom {

/// B samples of one or more modalities; tensors of absent modalities are undefined.
/// Where samples may lack a modality, their rows of it are zeros and `has_…_B` says who has it.
/// Shapes: B batch, C channels, H height, W width, T tokens, F mel bands, S frames. With V views a picture,
/// `image_BCHW` has V·B rows, view v of sample b at V·b + v; with K sentences a sample, `tokens_BT` and
/// `length_B` have K·B rows likewise; with K questions a sample, so have `label_B` and `prompt_length_B`, and
/// a sample's further rows of tokens stand behind its questions.
struct Batch {
  at::Tensor index_B;     ///< int64: position of each sample in its data set; keys dropout and augmentation
  at::Tensor image_BCHW;  ///< uint8 in RGB order until `to_device`, then float32, normalised
  at::Tensor mel_BFS;     ///< float32 log-mel energies, zeros behind a clip's end
  at::Tensor frames_B;    ///< int64: frames of each clip
  at::Tensor tokens_BT;   ///< int64, padded at the end with the padding id
  at::Tensor length_B;    ///< int64: unpadded tokens of each row
  /// bool: which samples have it; undefined where the modality is absent or none lacks it
  at::Tensor has_image_B, has_sound_B, has_text_B;
  at::Tensor label_B;          ///< int64 class ids, −1 where a sample has none
  at::Tensor prompt_length_B;  ///< int64: leading tokens of each row that are a question, 0: it asks nothing
  at::Tensor target_BT;        ///< int64, for each token but the last: the one to be foretold, −1 for none
  /// int64, for each token but the last: the number of its text in the row, −1 padding
  at::Tensor segment_BT;

  /// Every tensor, defined or not.
  std::array<at::Tensor*, 13> tensors() {
    return {&index_B,     &image_BCHW, &mel_BFS, &frames_B,  &tokens_BT,       &length_B,  &has_image_B,
            &has_sound_B, &has_text_B, &label_B, &target_BT, &prompt_length_B, &segment_BT};
  }
  int64_t size() const { return index_B.defined() ? index_B.size(0) : 0; }
  /// K, also where there are none.
  int64_t questions_each() const { return prompt_length_B.defined() ? prompt_length_B.size(0) / size() : 1; }
};

}  // namespace fathom
