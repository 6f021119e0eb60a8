#include "report/gate_exhibit.h"

#include <torch/torch.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>
#include <utility>

#include "batch/collate.h"
#include "data/image/image.h"
#include "evaluate/embedding.h"
#include "models/gate_maps.h"
#include "nn/token_gate.h"
#include "report/lit_image.h"
#include "report/sound_exhibit.h"

namespace fathom {
namespace {

constexpr int64_t kMostSamples = 4;
constexpr size_t kMostTokens = 120;
constexpr int64_t kWholePixels = 144, kLayerPixels = 96;  ///< sides of pictures
constexpr uint64_t kSeedOffset = 3;  ///< keeps the draws apart from those of the other exhibits

/// What a gate made of a pass over one sample.
struct Choice {
  std::string name;
  int64_t index = 0;    ///< of its block in the encoder
  at::Tensor active_T;  ///< bool, on the CPU
};

/// In the order of the layers.
std::vector<Choice> choices_of(const torch::nn::Module& encoder, const GateTrace& trace) {
  std::vector<Choice> choices;
  for (const auto& [name, gate] : gates_of(encoder)) {
    const TokenGateOptions& options = gate->options();
    if (const auto found = trace.active_BT.find(options.layer); found != trace.active_BT.end())
      choices.push_back({name, options.index, found->second[0].to(at::kCPU).contiguous()});
  }
  return choices;
}

std::optional<GatedText> gated_text(const std::vector<int32_t>& ids, const Tokenizer& tokenizer,
                                    const std::vector<Choice>& choices) {
  if (choices.empty()) return std::nullopt;
  GatedText text;
  for (size_t t = 0; t < std::min(ids.size(), kMostTokens); ++t)
    text.tokens.push_back(tokenizer.decode(std::span(&ids[t], 1)));
  for (const Choice& choice : choices) {
    const bool* active = choice.active_T.const_data_ptr<bool>();
    text.layers.push_back({choice.name, std::vector<bool>(active, active + text.tokens.size())});
  }
  return text;
}

/// A picture square and small, a spectrogram as it is.
Image shown(const Image& image, const GatedPicture& picture, int64_t pixels) {
  return picture.is_sound ? image : resize(image, pixels, pixels, Filter::kBicubic);
}

/// `kept_HW` says where on the image lies what a gate chose.
void light_up(GatedPicture& picture, const Image& image, const std::vector<Choice>& choices,
              const std::function<at::Tensor(const Choice&)>& kept_HW) {
  picture.whole = jpeg_uri(shown(image, picture, kWholePixels));
  at::Tensor sum_HW = torch::zeros({image.height, image.width});
  for (const Choice& choice : choices) {
    const at::Tensor light_HW = kept_HW(choice);
    sum_HW += light_HW;
    picture.layers.push_back({choice.name, choice.active_T.to(at::kDouble).mean().item<double>(),
                              jpeg_uri(shown(lit(image, light_HW), picture, kLayerPixels))});
  }
  picture.light =
      jpeg_uri(shown(lit(image, sum_HW / static_cast<double>(choices.size())), picture, kWholePixels));
}

void add_picture(GateExhibit& exhibit, const char* title, const SwinConfig& config, const Image& image,
                 const std::vector<Choice>& choices) {
  if (choices.empty()) return;
  light_up(exhibit.pictures.emplace_back(GatedPicture{.title = title}), image, choices,
           [&](const Choice& choice) {
             return kept_pixels(config, choice.index, choice.active_T, image.height, image.width);
           });
}

void add_sound(GateExhibit& exhibit, const AudioEncoderConfig& config, const Spectrogram& spectrogram,
               const std::vector<Choice>& choices) {
  if (choices.empty()) return;
  light_up(exhibit.pictures.emplace_back(GatedPicture{.title = "audio encoder", .is_sound = true}),
           spectrogram_image(spectrogram, 1), choices, [&](const Choice& choice) {
             return kept_energies(config, choice.active_T, spectrogram.num_frames).flip(0);
           });
}

GateExhibit exhibit_of(GatedEncoders& model, const Sample& sample, const Tokenizer* tokenizer,
                       const EvaluateOptions& evaluate) {
  const PixelStatistics pixels =
      model.vision.is_empty() ? PixelStatistics{} : pixel_statistics(model.vision->config().preprocessing);
  const Batch batch = to_device(collate(std::span(&sample, 1)), evaluate.device, pixels);
  GateTrace trace;
  const ForwardContext context = evaluate.context(&trace);
  GateExhibit exhibit;
  if (!model.vision.is_empty() && batch.image_BCHW.defined()) {
    model.vision->eval();
    model.vision->features(batch.image_BCHW, context);
    add_picture(exhibit, "image encoder", model.vision->config(), sample.images.front(),
                choices_of(*model.vision, trace));
  }
  if (!model.text.is_empty() && batch.tokens_BT.defined()) {
    model.text->eval();
    model.text->hidden(batch.tokens_BT, batch.length_B, context);
    exhibit.text = gated_text(sample.token_rows.front(), *tokenizer, choices_of(*model.text, trace));
  }
  if (!model.audio.is_empty() && batch.mel_BFS.defined()) {
    model.audio->eval();
    model.audio->features(batch.mel_BFS, batch.frames_B, context);
    add_sound(exhibit, model.audio->config(), *sample.spectrogram, choices_of(*model.audio, trace));
  }
  return exhibit;
}

/// Of the tokens of a pass, those that stand before the text's and those of the text.
std::pair<std::vector<Choice>, std::vector<Choice>> split(const std::vector<Choice>& choices,
                                                          int64_t text_tokens) {
  std::pair<std::vector<Choice>, std::vector<Choice>> parts;
  for (const auto& [name, index, active_T] : choices) {
    const int64_t before = active_T.numel() - text_tokens;
    parts.first.push_back({name, index, active_T.slice(0, 0, before)});
    parts.second.push_back({name, index, active_T.slice(0, before)});
  }
  return parts;
}

GateExhibit exhibit_of(Fusion model, const Sample& sample, const TextEncoding& encoding,
                       const EvaluateOptions& evaluate) {
  const SwinConfig& vision = model->config().vision;
  const Batch batch = to_device(collate(std::span(&sample, 1), {.padding_id = encoding.padding_id()}),
                                evaluate.device, pixel_statistics(vision.preprocessing));
  // A caption is read by the same layers as the question.
  GateTrace seen, asked;
  const Percept percept = perceive(model, batch, evaluate.context(&seen));
  const PromptedTokens question = asked_texts(batch).question;
  model->hidden(percept, question, evaluate.context(&asked));
  GateExhibit exhibit;
  if (model->vision())
    add_picture(exhibit, "image encoder", vision, sample.images.front(), choices_of(*model->vision(), seen));
  auto [before, text] = split(choices_of(*model->text(), asked), question.tokens_BT.size(1));
  exhibit.text = gated_text(sample.token_rows.front(), encoding.tokenizer(), text);
  if (before.empty() || before.front().active_T.numel() != vision.num_regions()) return exhibit;
  const auto blocks = std::accumulate(vision.depths.begin(), vision.depths.end(), int64_t{0});
  for (Choice& choice : before) choice.index = blocks - 1;  // regions are places of the last stage
  add_picture(exhibit, "regions in the language model", vision, sample.images.front(), before);
  return exhibit;
}

void keep(std::vector<GateExhibit>& exhibits, GateExhibit exhibit) {
  if (exhibit.text || !exhibit.pictures.empty()) exhibits.push_back(std::move(exhibit));
}

std::vector<int64_t> drawn(int64_t size, const ExhibitOptions& options) {
  return draw_examples(size, std::min(options.count, kMostSamples),
                       static_cast<uint64_t>(options.seed) + kSeedOffset);
}

/// The place of `value`, or nothing.
std::optional<int64_t> place_of(const std::vector<int64_t>& values, int64_t value) {
  const auto found = std::find(values.begin(), values.end(), value);
  return found == values.end() ? std::nullopt : std::make_optional(found - values.begin());
}

}  // namespace

std::vector<GateExhibit> exhibit_gates(GatedEncoders model, const std::vector<Sample>& samples,
                                       const Tokenizer* tokenizer, const EvaluateOptions& evaluate) {
  const torch::NoGradGuard no_grad;
  std::vector<GateExhibit> exhibits;
  for (const Sample& sample : samples) keep(exhibits, exhibit_of(model, sample, tokenizer, evaluate));
  return exhibits;
}

std::vector<GateExhibit> exhibit_gates(Fusion model, const AnswerData& data, const EvaluateOptions& evaluate,
                                       const ExhibitOptions& options) {
  if (gates_of(*model).empty()) return {};
  const torch::NoGradGuard no_grad;
  model->eval();
  std::vector<GateExhibit> exhibits;
  for (const Sample& sample : gate_samples(*data.source, options))
    keep(exhibits, exhibit_of(model, sample, data.source->encoding(), evaluate));
  return exhibits;
}

Sample text_sample(const LanguageModel& model, const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids = tokenizer.encode(text);
  ids.resize(std::min({ids.size(), kMostTokens, static_cast<size_t>(model->config().max_positions)}));
  Sample sample;
  if (!ids.empty()) sample.token_rows.push_back(std::move(ids));
  return sample;
}

std::vector<Sample> gate_samples(const SampleSource& source, const ExhibitOptions& options) {
  std::vector<Sample> samples;
  for (const int64_t index : drawn(source.size(), options)) samples.push_back(source.load(index, 0));
  return samples;
}

std::vector<Sample> gate_samples(const RetrievalData& data, const ExhibitOptions& options) {
  std::vector<Sample> samples;
  for (const int64_t index : drawn(data.images->size(), options)) {
    Sample& sample = samples.emplace_back(data.images->load(index, 0));
    const int64_t record = data.record_of_image[static_cast<size_t>(index)];
    for (const int64_t caption : data.captions_with_image)
      if (sample.token_rows.empty() && data.texts->record_of(caption) == record)
        sample.token_rows = data.texts->load(caption, 0).token_rows;
    if (const auto sound = place_of(data.record_of_sound, record))
      sample.spectrogram = data.sounds->load(*sound, 0).spectrogram;
  }
  return samples;
}

}  // namespace fathom
