#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "evaluate/answering.h"
#include "models/narrowed.h"
#include "train/joint_classes.h"
#include "train/session_model.h"
#include "train/session_parts.h"
#include "train/task/answering.h"

namespace fathom {
namespace {

Metrics answer_metrics(const AnswerReport& report) {
  Metrics metrics{{"accuracy", {report.all.accuracy(), true}}};
  if (report.captions.captions > 0) metrics["caption_nats"] = {report.captions.mean_nats(), false};
  for (const auto& [name, share] : report.modality_weight) metrics["modality_weight/" + name] = {share, true};
  for (const auto& [name, figures] : report.groups) metrics["accuracy/" + name] = {figures.accuracy(), true};
  return metrics;
}

/// The names of the figures that an evaluation will give, with captions to foretell or without.
Metrics expected_metrics(bool with_captions) {
  AnswerReport report;
  report.captions.captions = with_captions;
  return answer_metrics(report);
}

bool generates(const RecipeConfig& recipe) {
  return recipe.fusion.answer == AnswerKind::kGenerated;
}

/// Where nothing is asked, whole captions are rarely hit: what decides is how probable they are.
std::string default_metric(const RecipeConfig& recipe, const Dataset& val) {
  const auto& records = val.records();
  return generates(recipe) && std::all_of(records.begin(), records.end(), is_captioning) ? "caption_nats"
                                                                                         : "accuracy";
}

using Datasets = std::vector<std::shared_ptr<const Dataset>>;
using Questions = std::vector<std::shared_ptr<const QuestionSource>>;

/// The answers of all data sets that are trained on, in alphabetical order: their positions are the class
/// ids.
std::vector<std::string> training_answers(const Datasets& trained, const SessionPlace& place) {
  std::vector<ClassSet> sets;
  std::set<std::string> all;
  for (const auto& dataset : trained) {
    sets.push_back({dataset->path(), answer_names(*dataset)});
    all.insert(sets.back().names.begin(), sets.back().names.end());
  }
  if (all.empty())
    fail(ErrorKind::kData,
         "{}: no row has a question with an answer, which model.answer = \"classes\" learns",
         trained.front()->path());
  std::vector<std::string> names(all.begin(), all.end());
  if (place.collective.rank() == 0) report_classes(sets, names);
  return names;
}

/// Those of each data set; pictures are kept for all of them together.
Questions training_questions(const RecipeConfig& recipe, const Datasets& trained,
                             std::shared_ptr<const Tokenizer> tokenizer) {
  const ModelInputs& inputs = recipe.data.inputs;
  QuestionSource::Setup setup{.dataset = nullptr,
                              .images = nullptr,
                              .text = TextEncoding(std::move(tokenizer), inputs.text),
                              .config = inputs.question,
                              .answers = recipe.fusion.answers,
                              .answers_follow = generates(recipe),
                              .with_captions = recipe.fusion.captions,
                              .phase = Phase::kTrain,
                              .seed = recipe.seed,
                              .questions_per_image = recipe.data.pairing.questions_per_image};
  if (recipe.fusion.sees()) setup.images = std::make_shared<const ImageViews>(inputs.image, Phase::kTrain);
  Questions questions;
  for (const auto& dataset : trained) {
    setup.dataset = dataset;
    questions.push_back(std::make_shared<const QuestionSource>(setup));
  }
  return questions;
}

/// Questions of a sample, over the samples that an epoch has of each data set.
double mean_questions(const Session& session, const Questions& questions) {
  if (session.mix.empty()) return questions.front()->mean_questions();
  double sum = 0, samples = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto drawn = static_cast<double>(session.mix[i].epoch_samples);
    sum += drawn * questions[i]->mean_questions();
    samples += drawn;
  }
  return sum / samples;
}

/// Equal shapes let a step be recorded, where steps are.
CollateConfig training_collate(const RecipeConfig& recipe, const SessionPlace& place,
                               const QuestionSource& questions) {
  CollateConfig collate{.padding_id = questions.encoding().padding_id()};
  const bool records = recipe.training.record_step && place.collective.size() == 1;
  if (place.runtime.device().is_cpu() || !records) return collate;
  collate.pad_to = recipe.question_tokens();
  return collate;
}

void log_grouping(const QuestionSource& questions) {
  const int64_t most = questions.questions_per_image();
  if (most > 1)
    log::info("questions: {} in {} samples of up to {}, {:.1f} % of the rows", questions.dataset().size(),
              questions.size(), most, 100 * questions.mean_questions() / static_cast<double>(most));
}

}  // namespace

void open_answers(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_metric(recipe, expected_metrics(generates(recipe)));
  const auto tokenizer = make_tokenizer(recipe, place);
  if (std::string& captions = recipe.data.inputs.question.captions; !captions.empty())
    captions = std::filesystem::absolute(captions).string();
  FusionConfig& model = recipe.fusion;
  model.text.vocab_size = tokenizer->vocab_size();
  const Datasets trained = open_training_sets(recipe);
  if (model.answer == AnswerKind::kClasses && model.answers.empty())
    model.answers = training_answers(trained, place);
  const Questions questions = training_questions(recipe, trained, tokenizer);
  for (const auto& source : questions)
    if (place.collective.rank() == 0) log_grouping(*source);
  session.loader = make_loader(recipe, place, training_source(session, {questions.begin(), questions.end()}),
                               training_collate(recipe, place, *questions.front()));
  AnsweringTask::Setup setup{.config = recipe.answering,
                             .num_tokens = recipe.question_tokens(),
                             .questions_per_image = recipe.data.pairing.questions_per_image,
                             .mean_questions = mean_questions(session, questions),
                             .seed = recipe.seed,
                             .tokenizer_json = tokenizer->to_json(),
                             .adapter_base = adapter_base_of(recipe)};
  if (place.collective.rank() == 0) {
    ModelInputs evaluated = recipe.data.inputs;
    evaluated.text.mask_probability = 0;
    const std::shared_ptr<const Dataset> val = open_dataset(recipe.data.val);
    const auto& records = val->records();
    check_metric(recipe, expected_metrics(generates(recipe) &&
                                          std::any_of(records.begin(), records.end(), is_captioning)));
    setup.default_metric = default_metric(recipe, *val);
    const AnswerData data(val, model, evaluated, tokenizer);
    setup.evaluate = [data, options = evaluate_options(recipe, place, 256)](Fusion trained) {
      return answer_metrics(evaluate_answers(std::move(trained), data, options, /*blind=*/false));
    };
  }
  setup.model = Fusion(place.names_only ? narrowed(model) : model);
  note_start(session, place,
             place_model(*setup.model, ModelKind::kFusion, recipe, place, setup.tokenizer_json));
  session.record["inputs"] = config_to_json(recipe.data.inputs);
  note_evaluation_data(session);
  session.task = std::make_unique<AnsweringTask>(std::move(setup));
}

}  // namespace fathom
