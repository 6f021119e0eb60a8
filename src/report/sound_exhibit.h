// Examples of sounds for a report: spectrograms with what the model made of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "evaluate/classifier_run.h"
#include "evaluate/retrieval_data.h"
#include "report/exhibit.h"
#include "report/html.h"

namespace fathom {

struct SoundExhibit {
  std::string spectrogram;  ///< data URI of a PNG
  double seconds = 0;
  std::string name;              ///< what it is: its label, or its first caption
  std::string guess;             ///< the class that a classifier takes it for; empty without one
  double probability = 0;        ///< of the guess
  int64_t rank = 0;              ///< of its own picture among those it finds; 0: it has none
  std::vector<ExhibitHit> hits;  ///< the nearest pictures
};

/// Sounds that find pictures, drawn by the seed. Empty without sounds. Errors (kData) name the file.
std::vector<SoundExhibit> exhibit_sounds(const RetrievalData& data, const MeasuredData& measured,
                                         const ExhibitOptions& options = {});

/// Sounds with what a classifier takes them for, drawn by the seed. REQUIRES a model with an audio encoder.
std::vector<SoundExhibit> exhibit_classified_sounds(Classifier model, const ClassifierData& data,
                                                    const EvaluateOptions& evaluate,
                                                    const ExhibitOptions& options = {});

/// The section of the page; nothing for no exhibits.
void write_sounds(HtmlWriter& page, const std::vector<SoundExhibit>& exhibits);

/// Time to the right, low bands below, from dark (its least energy) to light (its most). `pixels` a frame and
/// a band.
Image spectrogram_image(const Spectrogram& spectrogram, int64_t pixels);
/// The same as "data:image/png;base64,…".
std::string spectrogram_uri(const Spectrogram& spectrogram, int64_t pixels = 2);

}  // namespace fathom
