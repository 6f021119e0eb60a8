// fathom eval MODEL [--data PATH] [--split S] [--task T] [--json]
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "cli/data_argument.h"
#include "cli/masked_token_data.h"
#include "cli/opened_model.h"
#include "cli/verbs.h"
#include "evaluate/answering.h"
#include "evaluate/classifier_run.h"
#include "evaluate/language.h"
#include "evaluate/masked_token.h"
#include "evaluate/modality_probe.h"
#include "evaluate/per_sample.h"
#include "evaluate/retrieval_data.h"
#include "evaluate/zero_shot.h"

namespace fathom::cli {
namespace {

struct EvalOptions {
  ModelOptions model;
  DataOptions data;
  std::string task = "auto";
  std::string train_split = "train";
  std::string group_tag = "unseen";
  int64_t window = 0;
  std::vector<std::string> templates;
  std::string per_sample;
  bool as_json = false;
};

void add_options(CLI::App& app, EvalOptions& options) {
  add_model_options(app, options.model, /*runs_data=*/true);
  add_data_options(app, options.data);
  app.add_option("--task", options.task, "what to measure; auto goes by model and data")
      ->check(CLI::IsMember({"auto", "retrieval", "answers", "language", "zero_shot", "linear_probe",
                             "modality_probe", "classification", "masked_token"}))
      ->capture_default_str();
  app.add_option("--train-split", options.train_split, "linear_probe: the split it learns from")
      ->capture_default_str();
  app.add_option("--group", options.group_tag, "retrieval, answers: the field whose values are shown apart")
      ->capture_default_str();
  app.add_option("--window", options.window,
                 "language, masked_token: tokens of a window (0: what the model can see)")
      ->check(at_least(0));
  app.add_option("--template", options.templates,
                 "zero_shot: a prompt with {} for the class; may be repeated");
  app.add_option("--per-sample", options.per_sample,
                 "retrieval, answers, classification: write what became of each sample, for `fathom compare`")
      ->check(in_a_folder())
      ->type_name("FILE");
  app.add_flag("--json", options.as_json, "print one JSON object");
}

std::string choose_task(const EvalOptions& options, const OpenedModel& model, const Dataset* dataset) {
  if (options.task != "auto") return options.task;
  if (model.loaded.kind == ModelKind::kSwin) return "linear_probe";
  if (model.loaded.kind == ModelKind::kFusion) return "answers";
  if (model.loaded.kind == ModelKind::kClassifier) return "classification";
  const bool has_captions = std::any_of(dataset->records().begin(), dataset->records().end(),
                                        [](const Record& record) { return !record.captions.empty(); });
  return has_captions ? "retrieval" : "zero_shot";
}

/// What is measured of a language model. Errors (kCheckpoint): the model is none.
std::string text_task(const EvalOptions& options, const OpenedModel& model) {
  const LanguageModel language = model.language(fmt::format("the task {}", options.task).c_str());
  if (options.task != "auto") return options.task;
  return language->config().attention == AttentionKind::kCausal ? "language" : "masked_token";
}

void print_direction(const char* name, const RecallFigures& figures) {
  fmt::print("  {:<14} {:>6.2f} {:>6.2f} {:>6.2f} {:>12.1f}\n", name, figures.r1, figures.r5, figures.r10,
             figures.median_rank);
}

/// "t2i" → "text → image".
std::string direction_name(const std::string& direction) {
  const auto modality = [](char letter) {
    return letter == 't' ? "text" : letter == 'i' ? "image" : "audio";
  };
  return fmt::format("{} → {}", modality(direction.front()), modality(direction.back()));
}

void print_directions(const std::string& title, const RetrievalDirections& directions) {
  fmt::print("{}\n", title);
  for (const auto& [name, figures] : directions.named())
    print_direction(direction_name(name).c_str(), figures);
}

void print_report(const RetrievalReport& report) {
  fmt::print("retrieval among {} images{} and {} captions (percent; ties count against us)\n", report.images,
             report.sounds > 0 ? fmt::format(", {} sounds", report.sounds) : "", report.captions);
  fmt::print("  {:<14} {:>6} {:>6} {:>6} {:>12}\n", "", "R@1", "R@5", "R@10", "median rank");
  print_directions("all", report.all);
  for (const auto& [name, figures] : report.groups) print_directions(name, figures);
  if (report.rerank > 0)
    print_directions(fmt::format("before the first {} were ordered anew", report.rerank), report.global);
  print_directions("chance", report.chance);
}

void print_report(const LanguageReport& report) {
  fmt::print("bits per byte {:.4f}, perplexity {:.2f} ({} tokens, {} bytes)\n", report.bits_per_byte(),
             report.perplexity(), report.tokens, report.bytes);
}

void print_report(const MaskedTokenReport& report) {
  fmt::print("hidden tokens: {:.4f} nats each, {:.2f} % right (of {})\n", report.nats_per_token(),
             report.accuracy(), report.tokens);
}

void print_report(const LanguageReports& reports) {
  for (const auto& [name, report] : reports.files) {
    if (reports.files.size() > 1) fmt::print("{}: ", name);
    print_report(report);
  }
  if (reports.files.size() < 2) return;
  fmt::print("together: ");
  print_report(reports.all());
}

void print_report(const ClassificationReport& report) {
  if (report.task == "modality_probe") {
    fmt::print("{}: pictures and captions told apart {:.2f} % of the time, of {} (guessing: {:.2f} %)\n",
               report.task, report.accuracy, report.count, report.chance);
    return;
  }
  fmt::print("{}: accuracy {:.2f} % on {} samples of {} classes (always the most frequent class: {:.2f} %)\n",
             report.task, report.accuracy, report.count, report.classes, report.chance);
}

void print_answers(const std::string& name, const AnswerCount& figures) {
  fmt::print("  {:<24} {:>6.2f} % of {}\n", name, figures.accuracy(), figures.count);
}

void print_report(const AnswerReport& report) {
  fmt::print("right answers\n");
  print_answers("all", report.all);
  if (report.blind.count > 0) print_answers("the same, blind", report.blind);
  if (report.agreement.count > 0) {
    print_answers("by the picture alone", report.image_only);
    print_answers("by the caption alone", report.caption_only);
    print_answers("where these two agree", report.agreement);
  }
  for (const auto& [name, figures] : report.groups) print_answers(name, figures);
  if (report.captions.captions > 0)
    fmt::print("  {:<24} {:>6.3f} of {}\n", "nats a token of captions", report.captions.mean_nats(),
               report.captions.captions);
  if (report.blind_captions.captions > 0)
    fmt::print("  {:<24} {:>6.3f}\n", "the same, blind", report.blind_captions.mean_nats());
  for (const auto& [name, share] : report.modality_weight)
    fmt::print("  {:<24} {:>6.3f}\n", "weight of the " + name, share);
}

template <typename Report>
int show(const Report& report, bool as_json) {
  if (as_json)
    print_json(report.to_json());
  else
    print_report(report);
  return 0;
}

/// Tokens of a window. Errors (kConfig): more than the model sees.
int64_t window_of(const EvalOptions& options, const LanguageModel& language) {
  const int64_t longest = language->config().max_positions;
  if (options.window > longest)
    fail(ErrorKind::kConfig, "--window {}: the model sees at most {} tokens", options.window, longest);
  return options.window > 0 ? options.window : longest;
}

int eval_masked_token(const EvalOptions& options, const OpenedModel& model) {
  const LanguageModel language = model.language("the task masked_token");
  const MaskedTokenData data =
      masked_token_data(model, options.data, std::max<int64_t>(2, window_of(options, language)));
  return show(evaluate_masked_tokens(language, data.source, data.config, data.vocabulary, data.options),
              options.as_json);
}

int eval_language(const EvalOptions& options, const OpenedModel& model) {
  const LanguageModel language = model.language("the task language");
  if (language->config().attention == AttentionKind::kBidirectional)
    fail(ErrorKind::kCheckpoint,
         "{}: this model sees text in both directions and foretells no next token: --task masked_token",
         model.folder);
  const auto tokenizer = model.require_tokenizer();
  const NamedWindows texts =
      open_texts(data_paths(options.data, model), *tokenizer, window_of(options, language));
  EvaluateOptions evaluate = model.evaluate;
  evaluate.batch_size = std::min<int64_t>(evaluate.batch_size, 16);  // windows are long
  return show(evaluate_language(language, texts, evaluate), options.as_json);
}

/// A field that was asked for by name and that no row has would leave its figures out without a word.
void require_tag(const CLI::App& app, const EvalOptions& options, const Dataset& dataset) {
  if (app.count("--group") == 0) return;
  const auto has = [&](const Record& record) { return record.tags.contains(options.group_tag); };
  if (std::none_of(dataset.records().begin(), dataset.records().end(), has))
    fail(ErrorKind::kData, "--group {}: no row of {} has this field", options.group_tag, dataset.path());
}

int eval_answers(const EvalOptions& options, const OpenedModel& model,
                 std::shared_ptr<const Dataset> dataset) {
  const Fusion fusion = model.fusion("the task answers");
  const AnswerData data(std::move(dataset), fusion->config(), model.inputs, model.require_tokenizer(),
                        options.group_tag == "kind" ? std::vector<std::string>{"kind"}
                                                    : std::vector<std::string>{options.group_tag, "kind"});
  const AnswerReport report = evaluate_answers(fusion, data, model.evaluate);
  if (!options.per_sample.empty()) write_sample_results(options.per_sample, sample_results(report, data));
  return show(report, options.as_json);
}

int eval_zero_shot(const EvalOptions& options, const OpenedModel& model,
                   std::shared_ptr<const Dataset> dataset) {
  const auto names = dataset->class_names();
  const LabelledData data(dataset, model.inputs, names);
  const TextEncoding encoding(model.require_tokenizer(), model.inputs.text);
  return show(
      evaluate_zero_shot(model.dual_tower("the task zero_shot"), data, encoding, names,
                         options.templates.empty() ? default_templates() : options.templates, model.evaluate),
      options.as_json);
}

at::Tensor image_features(const OpenedModel& model, const LabelledData& data) {
  if (model.loaded.kind == ModelKind::kSwin)
    return embed_images(model.loaded.vision, data.images, model.evaluate);
  return embed_images(model.dual_tower("the task linear_probe"), data.images, model.evaluate);
}

int eval_linear_probe(const EvalOptions& options, const OpenedModel& model,
                      std::shared_ptr<const Dataset> test) {
  DataOptions train_data = options.data;
  train_data.split = options.train_split;
  train_data.split_given = true;
  const std::shared_ptr<const Dataset> train = open_data(train_data, model);
  const auto names = train->class_names();
  const LabelledData learn(train, model.inputs, names), measure(test, model.inputs, names);
  return show(
      linear_probe({image_features(model, learn), learn.label_N},
                   {image_features(model, measure), measure.label_N}, static_cast<int64_t>(names.size())),
      options.as_json);
}

int eval_classification(const EvalOptions& options, const OpenedModel& model,
                        std::shared_ptr<const Dataset> dataset) {
  const Classifier classifier = model.classifier("the task classification");
  const ClassifierData data(classifier->config(), dataset, model.inputs,
                            classifier->text() ? model.require_tokenizer() : nullptr, Phase::kEvaluate,
                            /*seed=*/0);
  const ClassificationReport report = evaluate_classifier(classifier, data, model.evaluate);
  if (!options.per_sample.empty()) write_sample_results(options.per_sample, sample_results(report, *dataset));
  return show(report, options.as_json);
}

}  // namespace

int run_eval(int argc, const char* const* argv) {
  VerbApp app("eval",
              "Measures a model on a data set: retrieval, answers, language, hidden tokens, classes, "
              "zero-shot classes or a linear "
              "probe.");
  EvalOptions options;
  add_options(app, options);
  if (!parse_options(app, argc, argv)) return 0;
  const OpenedModel model = open_model(options.model);
  const auto has_samples = [&](const std::string& task) {
    if (!options.per_sample.empty() && task != "retrieval" && task != "answers" && task != "classification")
      fail(ErrorKind::kUsage, "--per-sample: for the tasks retrieval, answers and classification");
    if (app.count("--group") > 0 && task != "retrieval" && task != "answers")
      fail(ErrorKind::kUsage, "--group: for the tasks retrieval and answers, this one is {}", task);
  };
  const bool guesses = options.task == "auto" && model.loaded.kind == ModelKind::kLanguage;
  if (guesses || options.task == "language" || options.task == "masked_token") {
    const std::string task = text_task(options, model);
    has_samples(task);
    return task == "language" ? eval_language(options, model) : eval_masked_token(options, model);
  }

  const std::shared_ptr<const Dataset> dataset = open_data(options.data, model);
  const std::string task = choose_task(options, model, dataset.get());
  has_samples(task);
  if (task == "retrieval" || task == "answers") require_tag(app, options, *dataset);
  if (task == "answers") return eval_answers(options, model, dataset);
  if (task == "zero_shot") return eval_zero_shot(options, model, dataset);
  if (task == "classification") return eval_classification(options, model, dataset);
  if (task == "linear_probe") return eval_linear_probe(options, model, dataset);
  const bool probes = task == "modality_probe";
  const DualTower tower = model.dual_tower(probes ? "the task modality_probe" : "the task retrieval");
  const RetrievalData data(dataset, model.inputs, model.require_tokenizer(),
                           {.group_tag = options.group_tag, .audio_tower = tower->config().audio_tower});
  if (probes) return show(modality_probe(embed_retrieval(tower, data, model.evaluate)), options.as_json);
  const MeasuredData measured = measure_retrieval(tower, data, model.evaluate);
  if (!options.per_sample.empty()) write_sample_results(options.per_sample, sample_results(measured, data));
  return show(measured.report, options.as_json);
}

}  // namespace fathom::cli
