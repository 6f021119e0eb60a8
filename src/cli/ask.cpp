// fathom ask MODEL --image FILE "how many cubes?"
// fathom ask MODEL --caption "three red cubes" "how many cubes?"
#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "cli/opened_model.h"
#include "cli/verbs.h"
#include "evaluate/answering.h"
#include "evaluate/embedding.h"

namespace fathom::cli {
namespace {

struct AskOptions {
  ModelOptions model;
  std::string image, caption;
  std::vector<std::string> questions;
  int64_t top = 1;
  bool as_json = false;
};

void add_options(CLI::App& app, AskOptions& options) {
  add_model_options(app, options.model, /*runs_data=*/false);
  app.add_option("questions", options.questions, "each quoted question is answered apart")
      ->required()
      ->type_name("QUESTIONS");
  app.add_option("--image", options.image, "the picture they are about")->type_name("FILE");
  app.add_option("--caption", options.caption,
                 "what it shows, beside the picture or in its place, where the model reads captions")
      ->type_name("TEXT");
  app.add_option("--top", options.top, "how many answers to show, where the model chooses")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--json", options.as_json, "print one JSON object");
}

void check_questions(const std::vector<std::string>& questions) {
  for (const std::string& question : questions)
    if (question.find_first_not_of(" \t\r\n") == std::string::npos)
      fail(ErrorKind::kUsage, "ask: a question without words");
}

void check_top(const AskOptions& options, const FusionConfig& config) {
  if (options.top > 1 && config.answer == AnswerKind::kGenerated)
    fail(ErrorKind::kUsage, "ask: --top: this model writes its answer, and has one");
}

void check_modalities(const AskOptions& options, const FusionConfig& config) {
  if (!options.caption.empty() && !config.captions)
    fail(ErrorKind::kUsage, "ask: --caption: this model reads no captions (model.captions)");
  if (!options.image.empty() && !config.sees())
    fail(ErrorKind::kUsage, "ask: --image: this model sees no pictures");
  if (config.sees() && options.image.empty() && options.caption.empty())
    fail(ErrorKind::kUsage, "ask: --image FILE{} is needed", config.captions ? " or --caption TEXT" : "");
}

void warn_of_cuts(const AskOptions& options, const TextEncoding& encoding) {
  const auto warn = [&](const std::string& name, const std::string& text) {
    if (const int64_t cut = encoding.num_cut(text); cut > 0)
      log::warning("{}: its last {} tokens are cut, the model takes {} (data.text.max_tokens)", name, cut,
                   encoding.config().max_tokens);
  };
  for (size_t i = 0; i < options.questions.size(); ++i)
    warn(fmt::format("question {}", i + 1), options.questions[i]);
  warn("caption", options.caption);
}

Batch make_batch(const AskOptions& options, const OpenedModel& model, const TextEncoding& encoding) {
  const FusionConfig& config = model.loaded.fusion->config();
  std::vector<Sample> samples(options.questions.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].token_rows.push_back(encoding.encode(options.questions[i]));
    samples[i].prompt_lengths = {static_cast<int64_t>(samples[i].token_rows[0].size())};
  }
  if (!options.caption.empty())
    for (Sample& sample : samples) sample.token_rows.push_back(encoding.encode(options.caption));
  if (!options.image.empty()) {
    Random random(0, 0);
    const Image image = ImageViews(model.inputs.image, Phase::kEvaluate).view(options.image, random);
    for (Sample& sample : samples) sample.images.push_back(image);
  }
  Batch batch = collate(samples, {.padding_id = encoding.padding_id()});
  require_known_tokens(batch.tokens_BT, config.text.vocab_size);
  return to_device(std::move(batch), model.evaluate.device, pixel_statistics(config.vision.preprocessing));
}

/// The answers to one question, best first; those of a model that generates have no probability.
struct Answered {
  std::string question;
  std::vector<RatedAnswer> answers;
  bool rated = true;

  Json to_json() const {
    Json list = Json::array();
    for (const RatedAnswer& answer : answers) {
      Json entry = Json::Object{{"answer", answer.text}};
      if (rated) entry["probability"] = answer.probability;
      list.push_back(entry);
    }
    return Json::Object{{"question", question}, {"answers", list}};
  }
  void print() const {
    fmt::print("{}\n", question);
    for (const RatedAnswer& answer : answers)
      fmt::print("{}\n", rated ? fmt::format("  {} ({:.0f} %)", answer.text, 100 * answer.probability)
                               : "  " + answer.text);
  }
};

std::vector<Answered> answer_all(const AskOptions& options, const OpenedModel& model) {
  Fusion fusion = model.fusion("ask");
  const FusionConfig& config = fusion->config();
  check_modalities(options, config);
  check_top(options, config);
  fusion->eval();
  const TextEncoding encoding(model.require_tokenizer(), model.inputs.text);
  warn_of_cuts(options, encoding);
  const Batch batch = make_batch(options, model, encoding);
  const ForwardContext context = model.evaluate.context();
  std::vector<Answered> all;
  for (const std::string& question : options.questions) all.push_back({.question = question});
  if (config.answer == AnswerKind::kClasses) {
    const auto rated = rate_answers(fusion, batch, options.top, context);
    for (size_t i = 0; i < all.size(); ++i) all[i].answers = rated[i];
    return all;
  }
  const auto said = answer_batch(fusion, batch, encoding, model.inputs.question.max_answer_tokens, context);
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].answers.push_back({.text = said[i]});
    all[i].rated = false;
  }
  return all;
}

}  // namespace

int run_ask(int argc, const char* const* argv) {
  VerbApp app("ask", "Answers questions about a picture, or about what a caption says of it.");
  AskOptions options;
  add_options(app, options);
  if (!parse_options(app, argc, argv)) return 0;
  check_questions(options.questions);
  const auto answered = answer_all(options, open_model(options.model));
  if (!options.as_json) {
    for (const Answered& one : answered) one.print();
    return 0;
  }
  Json list = Json::array();
  for (const Answered& one : answered) list.push_back(one.to_json());
  Json about = Json::object();
  if (!options.image.empty()) about["image"] = options.image;
  if (!options.caption.empty()) about["caption"] = options.caption;
  about["questions"] = list;
  print_json(about);
  return 0;
}

}  // namespace fathom::cli
