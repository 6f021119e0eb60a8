// What the layers of a model with gates computed of a text, a picture or a sound, for a report.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "evaluate/answering.h"
#include "evaluate/options.h"
#include "evaluate/retrieval_data.h"
#include "models/audio/model.h"
#include "models/fusion/model.h"
#include "models/language/model.h"
#include "models/swin/model.h"
#include "report/exhibit.h"
#include "report/html.h"

namespace fathom {

/// The tokens of a text, as far as it is shown.
struct GatedText {
  struct Layer {
    std::string name;        ///< that of its gate in log.jsonl, without its encoder's: "3"
    std::vector<bool> kept;  ///< by token
  };
  std::vector<std::string> tokens;
  std::vector<Layer> layers;
};

/// A picture, or a sound's spectrogram: data URIs of JPEG pictures.
struct GatedPicture {
  struct Layer {
    std::string name;     ///< likewise: "0.1.mlp" of the second block of a Swin's first stage
    double share = 0;     ///< of the places, or windows, that it computed
    std::string picture;  ///< dark where it computed nothing
  };
  std::string title;  ///< whose layers these are: "image encoder"
  bool is_sound = false;
  std::string whole;
  std::string light;  ///< each place as bright as the share of the layers that computed it
  std::vector<Layer> layers;
};

/// Of one sample.
struct GateExhibit {
  std::optional<GatedText> text;
  std::vector<GatedPicture> pictures;
};

/// The encoders of a model; empty where it has none of a kind.
struct GatedEncoders {
  Swin vision{nullptr};
  LanguageModel text{nullptr};
  AudioEncoder audio{nullptr};
};

/// What gates chose of each sample by itself; nothing of encoders without gates, or run dense, and no exhibit
/// of a sample of which there is nothing. The models live on `evaluate.device`. `tokenizer` may be null
/// without a text encoder.
std::vector<GateExhibit> exhibit_gates(GatedEncoders model, const std::vector<Sample>& samples,
                                       const Tokenizer* tokenizer, const EvaluateOptions& evaluate);
/// The same of questions, and, where pictures stand before the text, of the regions that its layers compute.
std::vector<GateExhibit> exhibit_gates(Fusion model, const AnswerData& data, const EvaluateOptions& evaluate,
                                       const ExhibitOptions& options);

/// The beginning of a text as a sample.
Sample text_sample(const LanguageModel& model, const Tokenizer& tokenizer, const std::string& text);
/// A few samples drawn by the seed.
std::vector<Sample> gate_samples(const SampleSource& source, const ExhibitOptions& options);
/// The same of pictures, each with one of its captions and its sound, where it has one.
std::vector<Sample> gate_samples(const RetrievalData& data, const ExhibitOptions& options);

/// The section of the page: texts darker, pictures and sounds brighter where more layers computed them, and
/// what each layer did. Nothing for no exhibits.
void write_gates(HtmlWriter& page, const std::vector<GateExhibit>& exhibits);

}  // namespace fathom
