#include "report/answer_exhibit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "data/image/image.h"
#include "evaluate/embedding.h"
#include "report/lit_image.h"

namespace fathom {
namespace {

/// What a trace says of one sample.
struct Look {
  at::Tensor reading_P;  ///< undefined: the model does not look so
  at::Tensor memory_P;
  std::string weights;
};

/// The first P of the mean over `count` rows, as shares of their sum.
at::Tensor mean_over_regions(const at::Tensor& attention_RS, int64_t count, int64_t regions) {
  const at::Tensor mean_P =
      attention_RS.slice(0, 0, count).mean(0).slice(0, 0, regions).to(at::kCPU, at::kFloat);
  return mean_P / mean_P.sum().clamp_min(1e-12);
}

Look look_of(const FusionTrace& trace, int64_t sample, int64_t question_tokens, int64_t regions,
             const std::vector<std::string>& names) {
  Look look;
  if (trace.reading_BTS.defined())
    look.reading_P = mean_over_regions(trace.reading_BTS[sample], question_tokens, regions);
  if (trace.memory_BMS.defined())
    look.memory_P = mean_over_regions(trace.memory_BMS[sample], trace.memory_BMS.size(1), regions);
  if (!trace.weight_BN.defined()) return look;
  const at::Tensor weight_N = trace.weight_BN[sample].to(at::kCPU, at::kFloat);
  for (size_t n = 0; n < names.size(); ++n)
    look.weights += fmt::format("{}{} {:.2f}", n == 0 ? "" : ", ", names[n],
                                weight_N[static_cast<int64_t>(n)].item<float>());
  return look;
}

}  // namespace

Image light_regions(const Image& image, const at::Tensor& share_P, int64_t pixels) {
  const auto side = std::llround(std::sqrt(static_cast<double>(share_P.size(0))));
  FATHOM_CHECK(side * side == share_P.size(0), "[report] expected a square grid of regions, got {}",
               share_P.size(0));
  const at::Tensor light_11HW = at::upsample_bilinear2d(
      (share_P / share_P.max().clamp_min(1e-12)).to(at::kFloat).view({1, 1, side, side}), {pixels, pixels},
      /*align_corners=*/false);
  return lit(resize(image, pixels, pixels, Filter::kBicubic), light_11HW.squeeze(0).squeeze(0));
}

std::vector<AnswerExhibit> exhibit_answers(Fusion model, const AnswerData& data, const AnswerReport& report,
                                           const EvaluateOptions& evaluate, const ExhibitOptions& options) {
  const QuestionSource& source = *data.source;
  const auto chosen = draw_examples(source.size(), options.count, static_cast<uint64_t>(options.seed));
  if (chosen.empty()) return {};
  std::vector<Sample> samples;
  for (const int64_t index : chosen) samples.push_back(source.load(index, 0));
  const Batch batch = to_device(collate(samples, {.padding_id = source.encoding().padding_id()}),
                                evaluate.device, pixel_statistics(model->config().vision.preprocessing));
  const torch::NoGradGuard no_grad;
  model->eval();
  const ForwardContext context = evaluate.context();
  const Percept percept = perceive(model, batch, context);
  FusionTrace trace{.with_attention = true};
  model->hidden(percept, asked_texts(batch).question, context, &trace);

  std::vector<AnswerExhibit> exhibits;
  for (size_t i = 0; i < chosen.size(); ++i) {
    const Record& record = source.dataset().record(chosen[i]);
    const std::string& said = report.answers[static_cast<size_t>(chosen[i])];
    AnswerExhibit exhibit{.question = record.question,
                          .said = said,
                          .expected = answer_text(record),
                          .right = is_right(record, said),
                          .captioned = is_captioning(record)};
    if (exhibit.captioned) {
      exhibit.question = source.config().caption_prompt;
      exhibit.expected = fmt::format("{}", fmt::join(record.captions, " | "));
    }
    if (!samples[i].images.empty()) {
      const Image& image = samples[i].images.front();
      const int64_t pixels = options.thumbnail_pixels;
      const Look look =
          look_of(trace, static_cast<int64_t>(i), samples[i].prompt_lengths.front(),
                  percept.image.defined() ? percept.image.token_BSD.size(1) : 0, modality_names(percept));
      exhibit.picture = jpeg_uri(resize(image, pixels, pixels, Filter::kBicubic));
      if (look.reading_P.defined()) exhibit.reading = jpeg_uri(light_regions(image, look.reading_P, pixels));
      if (look.memory_P.defined()) exhibit.memory = jpeg_uri(light_regions(image, look.memory_P, pixels));
      exhibit.weights = look.weights;
    }
    exhibits.push_back(std::move(exhibit));
  }
  return exhibits;
}

}  // namespace fathom
