#include "evaluate/answering.h"

#include <torch/torch.h>

#include <algorithm>
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

/// Which modalities of a sample a question is asked with.
enum class Asked { kWithAll, kBlind, kByImage, kByCaption };

/// What an answer is found with.
struct Situation {
  Percept percept;
  PromptedTokens question;
  ForwardContext context;
  FusionTrace* trace = nullptr;
};

std::vector<std::string> chosen_answers(Fusion& model, const Situation& seen) {
  const at::Tensor best_B = model->class_logits(seen.percept, seen.question, seen.context, seen.trace)
                                .argmax(1)
                                .to(at::kCPU)
                                .contiguous();
  const int64_t* best = best_B.const_data_ptr<int64_t>();
  std::vector<std::string> answers;
  for (int64_t i = 0; i < best_B.size(0); ++i)
    answers.push_back(model->config().answers[static_cast<size_t>(best[i])]);
  return answers;
}

/// The tokens of each answer so far; rows grow at their own lengths.
class GrowingRows {
 public:
  GrowingRows(const PromptedTokens& question, int64_t max_new)
      : tokens_BT_(at::constant_pad_nd(question.tokens_BT, {0, max_new}, 0)),
        length_B_(question.prompt_length_B.clone()),
        prompt_length_B_(question.prompt_length_B) {}

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

at::Tensor next_tokens(Fusion& model, const Situation& seen, const PromptedTokens& text) {
  const at::Tensor hidden_BTD = model->hidden(seen.percept, text, seen.context, seen.trace);
  const at::Tensor last_B11 = (text.length_B - 1).view({-1, 1, 1});
  const at::Tensor last_BD = hidden_BTD.gather(1, last_B11.expand({-1, 1, hidden_BTD.size(2)})).squeeze(1);
  return model->text()->logits(last_BD).argmax(1);
}

std::vector<std::string> generated_answers(Fusion& model, const Situation& seen, const TextEncoding& encoding,
                                           int64_t max_new) {
  GrowingRows rows(seen.question, max_new);
  std::vector<std::vector<int32_t>> answers(static_cast<size_t>(seen.question.tokens_BT.size(0)));
  std::vector<bool> ended(answers.size(), false);
  for (int64_t step = 0; step < max_new; ++step) {
    const at::Tensor next_B = next_tokens(model, seen, rows.text());
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

std::vector<std::string> answers_in(Fusion& model, const Situation& seen, const TextEncoding& encoding,
                                    int64_t max_answer_tokens) {
  if (model->config().answer == AnswerKind::kClasses) return chosen_answers(model, seen);
  return generated_answers(model, seen, encoding, max_answer_tokens);
}

/// Adds up one pass over the questions.
struct Tally {
  AnswerCount all;
  VqaFigures people;
  CaptionFigures captions;
  std::map<std::string, AnswerCount> groups;
  std::map<std::string, double> weight;  ///< sums over the questions
  std::vector<std::string> answers;
};

/// With one modality alone captions are not measured.
bool measures_captions(const Fusion& model, Asked asked) {
  return model->config().answer == AnswerKind::kGenerated &&
         (asked == Asked::kWithAll || asked == Asked::kBlind);
}

void add_weights(const FusionTrace& trace, const Percept& percept, Tally& tally) {
  if (!trace.weight_BN.defined()) return;
  const at::Tensor sum_N = trace.weight_BN.sum(0).to(at::kCPU, at::kDouble);
  const auto names = modality_names(percept);
  for (size_t n = 0; n < names.size(); ++n) tally.weight[names[n]] += sum_N.const_data_ptr<double>()[n];
}

const char* pass_name(Asked asked) {
  switch (asked) {
    case Asked::kWithAll:
      return "questions";
    case Asked::kBlind:
      return "questions, blind";
    case Asked::kByImage:
      return "questions, pictures alone";
    case Asked::kByCaption:
      return "questions, captions alone";
  }
  return "";
}

Tally ask_all(Fusion& model, const AnswerData& data, const EvaluateOptions& options, Asked asked) {
  const torch::NoGradGuard no_grad;
  const QuestionSource& source = *data.source;
  LoaderSetup setup = one_pass(data.source, options.batch_size, options.workers);
  setup.collate.padding_id = source.encoding().padding_id();
  Loader loader(std::move(setup));
  std::optional<Progress> progress;
  if (options.show_progress) progress.emplace(pass_name(asked), source.size());
  const PixelStatistics pixels = pixel_statistics(model->config().vision.preprocessing);
  Tally tally;
  while (auto loaded = loader.next()) {
    require_known_tokens(loaded->tokens_BT, model->config().text.vocab_size);
    const at::Tensor index_B = loaded->index_B;
    Batch batch = to_device(std::move(*loaded), options.device, pixels);
    if (asked == Asked::kBlind)
      batch.image_BCHW = at::zeros_like(batch.image_BCHW);  // the mean of all pictures
    FusionTrace trace;
    Situation seen{.question = asked_texts(batch).question, .context = options.context(), .trace = &trace};
    seen.percept = perceive(model, batch, seen.context);
    if (asked == Asked::kByImage) seen.percept.caption = {};
    if (asked == Asked::kByCaption) seen.percept.image = {};
    const auto said = answers_in(model, seen, source.encoding(), source.config().max_answer_tokens);
    add_weights(trace, seen.percept, tally);
    CaptionedBatch captioned{.percept = seen.percept, .prompt = seen.question, .records = {}};
    for (size_t i = 0; i < said.size(); ++i) {
      const Record& record = source.dataset().record(index_B.const_data_ptr<int64_t>()[i]);
      const bool right = is_right(record, said[i]);
      const auto count = [&](AnswerCount& figures) {
        figures.right += right;
        figures.count += 1;
      };
      count(tally.all);
      tally.people.add(record, said[i]);
      for (const std::string& tag : data.group_tags)
        if (const auto value = record.tags.find(tag); value != record.tags.end())
          count(tally.groups[tag + "=" + value->second]);
      tally.answers.push_back(said[i]);
      captioned.records.push_back(&record);
    }
    if (measures_captions(model, asked)) add_captions(model, captioned, source, seen.context, tally.captions);
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
  if (captions.captions > 0) {
    json["caption_nats"] = captions.mean_nats();
    json["captions"] = captions.captions;
  }
  if (blind.count > 0) json["blind_accuracy"] = blind.accuracy();
  if (people.count > 0) json["vqa_accuracy"] = people.accuracy();
  if (blind_people.count > 0) json["blind_vqa_accuracy"] = blind_people.accuracy();
  if (blind_captions.captions > 0) json["blind_caption_nats"] = blind_captions.mean_nats();
  if (agreement.count > 0) {
    json["image_only_accuracy"] = image_only.accuracy();
    json["caption_only_accuracy"] = caption_only.accuracy();
    json["agreement"] = agreement.accuracy();
  }
  for (const auto& [name, share] : modality_weight) json["modality_weight"][name] = share;
  for (const auto& [name, figures] : groups) json["groups"][name] = figures_json(figures);
  return json;
}

std::vector<std::string> modality_names(const Percept& percept) {
  std::vector<std::string> names;
  if (percept.image.defined()) names.emplace_back("image");
  if (percept.caption.defined()) names.emplace_back("caption");
  names.emplace_back("question");
  return names;
}

bool is_right(const Record& record, const std::string& answer) {
  if (is_captioning(record))
    return std::find(record.captions.begin(), record.captions.end(), answer) != record.captions.end();
  return !record.answers.empty() && answer == answer_text(record);
}

AskedTexts asked_texts(const Batch& batch) {
  const int64_t rows_each = batch.tokens_BT.size(0) / batch.size(), questions_each = batch.questions_each();
  const at::Tensor prompt_length_B =
      questions_each == 1 ? batch.prompt_length_B : batch.prompt_length_B.clamp_min(1);
  if (rows_each == questions_each) return {.question = {batch.tokens_BT, batch.length_B, prompt_length_B}};
  const auto rows = [&](const at::Tensor& all, int64_t first, int64_t last) {
    return all.unflatten(0, {batch.size(), rows_each}).slice(1, first, last).flatten(0, 1).contiguous();
  };
  return {.question = {rows(batch.tokens_BT, 0, questions_each), rows(batch.length_B, 0, questions_each),
                       prompt_length_B},
          .caption = {rows(batch.tokens_BT, questions_each, rows_each),
                      rows(batch.length_B, questions_each, rows_each)}};
}

Percept perceive(Fusion model, const Batch& batch, const ForwardContext& context) {
  Percept percept;
  if (batch.image_BCHW.defined()) percept = model->perceive(batch.image_BCHW, context);
  if (!model->config().captions) return percept;
  if (const AskedTexts texts = asked_texts(batch); texts.caption.tokens_BT.defined())
    percept.caption = model->read(texts.caption, context);
  return percept;
}

std::vector<std::string> answer_batch(Fusion model, const Batch& batch, const TextEncoding& encoding,
                                      int64_t max_answer_tokens, const ForwardContext& context) {
  const torch::NoGradGuard no_grad;
  const Situation seen{.percept = perceive(model, batch, context),
                       .question = asked_texts(batch).question,
                       .context = context};
  return answers_in(model, seen, encoding, max_answer_tokens);
}

std::vector<std::vector<RatedAnswer>> rate_answers(Fusion model, const Batch& batch, int64_t top,
                                                   const ForwardContext& context) {
  const torch::NoGradGuard no_grad;
  const at::Tensor share_BC =
      model->class_logits(perceive(model, batch, context), asked_texts(batch).question, context)
          .softmax(1, at::kFloat)
          .to(at::kCPU);
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
          .with_captions = model.captions,
          .phase = Phase::kEvaluate})),
      group_tags(std::move(tags)) {}

AnswerReport evaluate_answers(Fusion model, const AnswerData& data, const EvaluateOptions& options,
                              bool blind) {
  model->eval();
  Tally seen = ask_all(model, data, options, Asked::kWithAll);
  AnswerReport report{
      .all = seen.all, .captions = seen.captions, .people = seen.people, .groups = std::move(seen.groups)};
  for (const auto& [name, sum] : seen.weight)
    report.modality_weight[name] = sum / static_cast<double>(seen.all.count);
  report.answers = std::move(seen.answers);
  if (!blind || !model->config().sees()) return report;
  const Tally blinded = ask_all(model, data, options, Asked::kBlind);
  report.blind = blinded.all;
  report.blind_captions = blinded.captions;
  report.blind_people = blinded.people;
  if (!model->config().captions) return report;
  Tally image = ask_all(model, data, options, Asked::kByImage);
  Tally caption = ask_all(model, data, options, Asked::kByCaption);
  report.image_only = image.all;
  report.caption_only = caption.all;
  report.agreement.count = image.all.count;
  for (size_t i = 0; i < image.answers.size(); ++i)
    report.agreement.right += image.answers[i] == caption.answers[i];
  report.image_answers = std::move(image.answers);
  report.caption_answers = std::move(caption.answers);
  return report;
}

}  // namespace fathom
