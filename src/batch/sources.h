// The sample sources: images with captions and sounds, images, clips or sentences alone, windows of a token
// stream.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "batch/audio_views.h"
#include "batch/image_views.h"
#include "batch/sample_source.h"
#include "batch/text_encoding.h"
#include "data/readers/dataset.h"
#include "data/readers/token_file.h"

namespace fathom {

/// How much of a picture a training batch holds.
struct PairingConfig {
  int64_t captions_per_image = 1;
  int64_t views_per_image = 1;
  int64_t questions_per_image = 1;
  void fields(Fields& f);
};

/// One sample a record: its image, its captions and, with `clips`, its sound (training: `pairing` views and
/// captions, drawn anew each epoch, tokens masked, sounds augmented; evaluation: the centre view, the first
/// caption, the middle of the sound). With `clips` a record may lack any one of the three. Broken rows, as
/// the data set's report handles them at construction: a record without image or caption; with `clips`, one
/// that has fewer than two of the three.
class PairedSource : public SampleSource {
 public:
  struct Setup {
    std::shared_ptr<const Dataset> dataset;
    std::shared_ptr<const ImageViews> images;
    TextEncoding text;
    int64_t seed = 0;
    PairingConfig pairing = {};
    std::shared_ptr<const AudioViews> clips = nullptr;  ///< null: sounds are left out
  };
  explicit PairedSource(Setup setup);
  int64_t size() const override { return setup_.dataset->size(); }
  Sample load(int64_t index, int64_t epoch) const override;
  DataReport* report() const override { return &setup_.dataset->report(); }
  /// Without the rows that were left out.
  const std::shared_ptr<const Dataset>& dataset() const { return setup_.dataset; }
  /// The first record that lacks one of the three; null when none does, and without `clips`.
  const Record* first_incomplete() const;

 private:
  Setup setup_;
};

/// One sample a record: its image, and its label as a class id (−1 without one). A record without image is a
/// broken row, as the data set's report handles it at construction.
class ImageSource : public SampleSource {
 public:
  ImageSource(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const ImageViews> images, int64_t seed,
              std::vector<std::string> class_names = {});
  int64_t size() const override { return dataset_->size(); }
  Sample load(int64_t index, int64_t epoch) const override;
  DataReport* report() const override { return &dataset_->report(); }

 private:
  std::shared_ptr<const Dataset> dataset_;
  std::shared_ptr<const ImageViews> images_;
  int64_t seed_;
  std::map<std::string, int64_t> class_ids_;
};

/// One sample a record: its clip's spectrogram, and its label as a class id (−1 without one). A record
/// without audio is a broken row, as the data set's report handles it at construction.
class AudioSource : public SampleSource {
 public:
  AudioSource(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const AudioViews> clips, int64_t seed,
              std::vector<std::string> class_names = {});
  int64_t size() const override { return dataset_->size(); }
  Sample load(int64_t index, int64_t epoch) const override;
  DataReport* report() const override { return &dataset_->report(); }

 private:
  std::shared_ptr<const Dataset> dataset_;
  std::shared_ptr<const AudioViews> clips_;
  int64_t seed_;
  std::map<std::string, int64_t> class_ids_;
};

/// One sample a sentence: every caption (or else the text) of every record, in order, each with its record's
/// label. Records that say nothing give none.
class TextSource : public SampleSource {
 public:
  TextSource(std::shared_ptr<const Dataset> dataset, TextEncoding text,
             std::vector<std::string> class_names = {});
  int64_t size() const override { return static_cast<int64_t>(places_.size()); }
  Sample load(int64_t index, int64_t epoch) const override;
  DataReport* report() const override { return &dataset_->report(); }

  /// The record that sentence `index` belongs to.
  int64_t record_of(int64_t index) const { return places_[static_cast<size_t>(index)].first; }
  const std::string& sentence(int64_t index) const;
  const TextEncoding& encoding() const { return text_; }

 private:
  std::shared_ptr<const Dataset> dataset_;
  TextEncoding text_;
  std::vector<std::pair<int64_t, int64_t>> places_;  ///< record, position among its captions
  std::map<std::string, int64_t> class_ids_;
};

/// Windows of `num_tokens` + 1 ids over one or more token files (the extra id makes inputs and targets of one
/// window).
///
/// Training: each epoch cuts every file from an offset in [0, num_tokens) drawn from (seed, epoch).
/// Evaluation: every token of a file is the target of exactly one window. Window w has the targets
/// [w·num_tokens, (w+1)·num_tokens), the last one fewer, and begins with the token before them (the first
/// window with `start_of_text`). Total loss over these windows ÷ ln 2 ÷ `text_bytes()` is the bits per byte.
class TokenWindowSource : public SampleSource {
 public:
  /// Errors (kData): a training file shorter than two windows, an empty evaluation file.
  TokenWindowSource(std::vector<TokenFile> files, int64_t num_tokens, Phase phase, int64_t seed,
                    int32_t start_of_text = 0);
  int64_t size() const override { return starts_.back(); }
  Sample load(int64_t index, int64_t epoch) const override;
  int64_t text_bytes() const;

 private:
  std::vector<TokenFile> files_;
  int64_t num_tokens_;
  Phase phase_;
  int64_t seed_;
  int32_t start_of_text_;
  std::vector<int64_t> starts_;  ///< number of windows before each file, and their total
};

}  // namespace fathom
