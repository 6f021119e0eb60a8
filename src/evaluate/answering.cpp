#include "evaluate/answering.h"

#include <torch/torch.h>

#include <limits>

#include "base/error.h"
#include "base/progress.h"
#include "batch/loader.h"
#include "evaluate/embedding.h"

namespace fathom {
namespace {

Json figures_json(const AnswerCount& figures) {
  return Json::Object{{"accuracy", figures.accuracy()}, {"count", figures.count}};
}

std::vector<std::string> chosen_answers(Fusion& model, const at::Tensor& region_BPD,
                                        const PromptedTokens& text, const ForwardContext& context) {
  const at::Tensor best_B =
      model->class_logits(region_BPD, text, context).argmax(1).to(at::kCPU).contiguous();
  const int64_t* best = best_B.const_data_ptr<int64_t>();
  std::vector<std::string> answers;
  for (int64_t i = 0; i < best_B.size(0); ++i)
    answers.push_back(model->config().answers[static_cast<size_t>(best[i])]);
  return answers;
}

/// The tokens of each answer so far; rows grow at their own lengths.
class GrowingRows {
 public:
  GrowingRows(const Batch& batch, int64_t max_new)
      : tokens_BT_(at::constant_pad_nd(batch.tokens_BT, {0, max_new}, 0)),
        length_B_(batch.prompt_length_B.clone()),
        prompt_length_B_(batch.prompt_length_B) {}

  PromptedTokens text() const {
    const int64_t longest = length_B_.max().item<int64_t>();
    return {tokens_BT_.slice(1, 0, longest), length_B_, prompt_length_B_};
  }
  void append(const at::Tensor& next_B) {
    tokens_BT_.scatter_(1, length_B_.unsqueeze(1), next_B.unsqueeze(1));
    length_B_ += 1;
  }

 private:
  at::Tensor tokens_BT_, length_B_, prompt_length_B_;
};

at::Tensor next_tokens(Fusion& model, const at::Tensor& region_BPD, const PromptedTokens& text,
                       const ForwardContext& context) {
  const at::Tensor hidden_BTD = model->hidden(region_BPD, text, context);
  const at::Tensor last_B11 = (text.length_B - 1).view({-1, 1, 1});
  const at::Tensor last_BD = hidden_BTD.gather(1, last_B11.expand({-1, 1, hidden_BTD.size(2)})).squeeze(1);
  return model->text()->logits(last_BD).argmax(1);
}

std::vector<std::string> generated_answers(Fusion& model, const at::Tensor& region_BPD, const Batch& batch,
                                           const TextEncoding& encoding, int64_t max_new,
                                           const ForwardContext& context) {
  GrowingRows rows(batch, max_new);
  std::vector<std::vector<int32_t>> answers(static_cast<size_t>(batch.size()));
  std::vector<bool> ended(answers.size(), false);
  for (int64_t step = 0; step < max_new; ++step) {
    const at::Tensor next_B = next_tokens(model, region_BPD, rows.text(), context);
    const at::Tensor host_B = next_B.to(at::kCPU).contiguous();
    bool all_ended = true;
    for (size_t i = 0; i < answers.size(); ++i) {
      const auto token = static_cast<int32_t>(host_B.const_data_ptr<int64_t>()[i]);
      ended[i] = ended[i] || token == encoding.end_id();
      if (!ended[i]) answers[i].push_back(token);
      all_ended = all_ended && ended[i];
    }
    if (all_ended) break;
    rows.append(next_B);
  }
  std::vector<std::string> texts;
  for (const auto& tokens : answers) texts.push_back(encoding.tokenizer().decode(tokens));
  return texts;
}

/// Adds up one pass over the questions.
struct Tally {
  AnswerCount all;
  std::map<std::string, AnswerCount> groups;
  std::vector<std::string> answers;
};

Tally ask_all(Fusion& model, const AnswerData& data, const EvaluateOptions& options, bool blind) {
  const QuestionSource& source = *data.source;
  LoaderSetup setup = one_pass(data.source, options.batch_size, options.workers);
  setup.collate.padding_id = source.encoding().padding_id();
  Loader loader(std::move(setup));
  std::optional<Progress> progress;
  if (options.show_progress) progress.emplace(blind ? "questions, blind" : "questions", source.size());
  const PixelStatistics pixels = pixel_statistics(model->config().vision.preprocessing);
  Tally tally;
  while (auto loaded = loader.next()) {
    require_known_tokens(loaded->tokens_BT, model->config().text.vocab_size);
    const at::Tensor index_B = loaded->index_B;
    Batch batch = to_device(std::move(*loaded), options.device, pixels);
    if (blind) batch.image_BCHW = at::zeros_like(batch.image_BCHW);  // the mean of all pictures
    const auto said = answer_batch(model, batch, source.encoding(), source.config().max_answer_tokens,
                                   {.compute_dtype = options.compute_dtype});
    for (size_t i = 0; i < said.size(); ++i) {
      const Record& record = source.dataset().record(index_B.const_data_ptr<int64_t>()[i]);
      const bool right = !record.answers.empty() && said[i] == answer_text(record);
      const auto count = [&](AnswerCount& figures) {
        figures.right += right;
        figures.count += 1;
      };
      count(tally.all);
      for (const std::string& tag : data.group_tags)
        if (const auto value = record.tags.find(tag); value != record.tags.end())
          count(tally.groups[tag + "=" + value->second]);
      tally.answers.push_back(said[i]);
    }
    if (progress) progress->update(tally.all.count);
  }
  return tally;
}

}  // namespace

double AnswerCount::accuracy() const {
  if (count == 0) return std::numeric_limits<double>::quiet_NaN();
  return 100.0 * static_cast<double>(right) / static_cast<double>(count);
}

Json AnswerReport::to_json() const {
  Json json = Json::Object{{"task", "answers"}, {"accuracy", all.accuracy()}, {"count", all.count}};
  if (blind.count > 0) json["blind_accuracy"] = blind.accuracy();
  for (const auto& [name, figures] : groups) json["groups"][name] = figures_json(figures);
  return json;
}

std::vector<std::string> answer_batch(Fusion model, const Batch& batch, const TextEncoding& encoding,
                                      int64_t max_answer_tokens, const ForwardContext& context) {
  const torch::NoGradGuard no_grad;
  const at::Tensor region_BPD = model->perceive(batch.image_BCHW, context);
  if (model->config().answer == AnswerKind::kClasses) {
    return chosen_answers(model, region_BPD, {batch.tokens_BT, batch.length_B, batch.prompt_length_B},
                          context);
  }
  return generated_answers(model, region_BPD, batch, encoding, max_answer_tokens, context);
}

std::vector<std::vector<RatedAnswer>> rate_answers(Fusion model, const Batch& batch, int64_t top,
                                                   const ForwardContext& context) {
  const torch::NoGradGuard no_grad;
  const at::Tensor region_BPD = model->perceive(batch.image_BCHW, context);
  const PromptedTokens text{batch.tokens_BT, batch.length_B, batch.prompt_length_B};
  const at::Tensor share_BC =
      model->class_logits(region_BPD, text, context).softmax(1, at::kFloat).to(at::kCPU);
  const auto [best_BN, place_BN] = share_BC.topk(std::min(top, share_BC.size(1)), 1);
  std::vector<std::vector<RatedAnswer>> rated(static_cast<size_t>(share_BC.size(0)));
  const auto best = best_BN.accessor<float, 2>();
  const auto place = place_BN.accessor<int64_t, 2>();
  for (int64_t b = 0; b < best.size(0); ++b)
    for (int64_t n = 0; n < best.size(1); ++n)
      rated[static_cast<size_t>(b)].push_back(
          {model->config().answers[static_cast<size_t>(place[b][n])], best[b][n]});
  return rated;
}

AnswerData::AnswerData(std::shared_ptr<const Dataset> dataset, const FusionConfig& model,
                       const ModelInputs& inputs, std::shared_ptr<const Tokenizer> tokenizer,
                       std::vector<std::string> tags)
    : source(std::make_shared<const QuestionSource>(QuestionSource::Setup{
          .dataset = std::move(dataset),
          .images =
              model.sees() ? std::make_shared<const ImageViews>(inputs.image, Phase::kEvaluate) : nullptr,
          .text = TextEncoding(std::move(tokenizer), inputs.text),
          .config = inputs.question,
          .answers = model.answers,
          .phase = Phase::kEvaluate})),
      group_tags(std::move(tags)) {}

AnswerReport evaluate_answers(Fusion model, const AnswerData& data, const EvaluateOptions& options,
                              bool blind) {
  model->eval();
  Tally seen = ask_all(model, data, options, /*blind=*/false);
  AnswerReport report{.all = seen.all, .groups = std::move(seen.groups), .answers = std::move(seen.answers)};
  if (blind && model->config().sees()) report.blind = ask_all(model, data, options, /*blind=*/true).all;
  return report;
}

}  // namespace fathom
