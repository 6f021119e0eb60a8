#include <utility>

#include "base/error.h"
#include "data/readers/class_names.h"
#include "evaluate/classifier_run.h"
#include "models/narrowed.h"
#include "train/joint_classes.h"
#include "train/session_model.h"
#include "train/session_parts.h"
#include "train/task/classification.h"

namespace fathom {
namespace {

Metrics classification_metrics(const ClassificationReport& report, double loss) {
  return {{"accuracy", {report.accuracy, true}}, {"loss", {loss, false}}};
}

/// Frames or tokens of the longest sample.
int64_t longest_sample(const RecipeConfig& recipe) {
  if (recipe.classifier.encoder == EncoderKind::kText) return recipe.data.inputs.text.max_tokens;
  return recipe.data.inputs.audio.max_frames();
}

/// The labels of all data sets that are trained on.
std::vector<std::string> training_classes(const std::vector<std::shared_ptr<const Dataset>>& trained,
                                          const SessionPlace& place) {
  std::vector<ClassSet> sets;
  std::vector<std::string> all;
  for (const auto& dataset : trained) {
    sets.push_back({dataset->path(), dataset->class_names()});
    all.insert(all.end(), sets.back().names.begin(), sets.back().names.end());
  }
  check_class_names(sets);
  all = sorted_class_names(std::move(all));
  if (place.collective.rank() == 0) report_classes(sets, all);
  return all;
}

}  // namespace

void open_classification(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_metric(recipe, classification_metrics({}, 0));
  const auto trained = open_training_sets(recipe);
  ClassifierConfig& config = recipe.classifier;
  if (config.classes.empty()) config.classes = training_classes(trained, place);
  if (config.classes.size() < 2)
    fail(ErrorKind::kData, "{}: rows with {} different labels, classification needs at least two",
         trained.size() > 1 ? "data.mix" : trained.front()->path(), config.classes.size());
  const ModelInputs& inputs = recipe.data.inputs;
  std::shared_ptr<const Tokenizer> tokenizer;
  if (config.encoder == EncoderKind::kText) {
    tokenizer = make_tokenizer(recipe, place);
    config.text.vocab_size = tokenizer->vocab_size();
  }
  const ClassifierReader reader(config, inputs, tokenizer, Phase::kTrain, recipe.seed);
  SampleSources sources;
  for (const auto& dataset : trained) sources.push_back(reader.read(dataset));
  CollateConfig collate = reader.collate();
  if (!place.runtime.device().is_cpu()) {  // equal shapes let a step be recorded
    collate.pad_frames_to = inputs.audio.max_frames();
    collate.pad_to = inputs.text.max_tokens;
  }
  session.loader = make_loader(recipe, place, training_source(session, sources), collate);
  ClassificationTask::Setup setup{.config = recipe.classification, .length = longest_sample(recipe)};
  if (tokenizer) setup.tokenizer_json = tokenizer->to_json();
  if (place.collective.rank() == 0) {
    ModelInputs evaluated = inputs;
    evaluated.text.mask_probability = 0;
    const auto val = std::make_shared<const ClassifierData>(config, open_dataset(recipe.data.val), evaluated,
                                                            tokenizer, Phase::kEvaluate, recipe.seed);
    setup.evaluate = [val, options = evaluate_options(recipe, place, 128)](Classifier model) {
      double loss = 0;
      const ClassificationReport report = evaluate_classifier(std::move(model), *val, options, &loss);
      return classification_metrics(report, loss);
    };
  }
  setup.model = Classifier(place.names_only ? narrowed(config) : config);
  note_start(session, place,
             place_model(*setup.model, ModelKind::kClassifier, recipe, place, setup.tokenizer_json));
  session.record["inputs"] = config_to_json(inputs);
  note_evaluation_data(session);
  session.task = std::make_unique<ClassificationTask>(std::move(setup));
}

}  // namespace fathom
