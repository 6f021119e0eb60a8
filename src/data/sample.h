// What a reader yields and a transform changes: plain buffers, no tensors.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace fathom {

/// Pixels in RGB order, row by row: `pixels[(y * width + x) * 3 + channel]`.
struct Image {
  int64_t height = 0;
  int64_t width = 0;
  std::vector<uint8_t> pixels;
};

/// One channel of sound; full scale is [-1, 1].
struct Audio {
  int64_t sample_rate = 0;
  std::vector<float> samples;
};

/// Log-mel energies: `values[band * num_frames + frame]`.
struct Spectrogram {
  int64_t num_bands = 0;
  int64_t num_frames = 0;
  std::vector<float> values;
};

/// One row of a manifest, before anything is decoded: paths are absolute, absent fields are empty.
struct Record {
  std::string id;  ///< the image's, audio's or row's name, unique in its data set where the source allows
  std::string image_path;
  std::string audio_path;
  std::vector<std::string> captions;
  std::string text;  ///< a document or sentence
  std::string question;
  std::vector<std::string> answers;
  std::string label;                        ///< class name, empty if none
  std::map<std::string, std::string> tags;  ///< other string fields, e.g. "unseen" for scenes
  std::string source;                       ///< "file:line" where it was written, for messages
};

/// A record with its media decoded and its text encoded.
struct Sample {
  int64_t index = 0;  ///< position in the data set
  Record record;
  std::vector<Image> images;  ///< none, one, or several views of one picture
  std::optional<Spectrogram> spectrogram;
  std::vector<std::vector<int32_t>> token_rows;  ///< none, one, or several encoded sentences
  /// Of each row that is a question, the first ones: its leading tokens; 0 for a row that asks nothing.
  std::vector<int64_t> prompt_lengths;
  std::vector<int32_t>
      targets;  ///< of the first row's tokens but the last: what follows, −1 what is not learned
  std::vector<int32_t>
      segments;  ///< likewise: the number of the text that each belongs to, where there are several
  std::vector<int64_t> labels = {-1};  ///< class ids, −1 for none: one, or one a question
};

}  // namespace fathom
