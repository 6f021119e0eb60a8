#include "evaluate/masked_token.h"
#include "models/narrowed.h"
#include "train/session_model.h"
#include "train/session_parts.h"
#include "train/task/masked_token.h"

namespace fathom {
namespace {

Metrics masked_token_metrics(const MaskedTokenReport& report) {
  return {{"masked_nats", {report.nats_per_token(), false}}, {"masked_accuracy", {report.accuracy(), true}}};
}

/// Windows whose every token is shown, a row of the model's length each.
std::shared_ptr<const SampleSource> windows(const RecipeConfig& recipe, const std::vector<std::string>& paths,
                                            const Tokenizer& tokenizer, Phase phase) {
  std::vector<TokenFile> files;
  for (const std::string& path : paths) files.push_back(TokenFile::open(path, tokenizer));
  return std::make_shared<const TokenWindowSource>(std::move(files), recipe.language.max_positions - 1, phase,
                                                   recipe.seed, tokenizer.start_of_text().value_or(0));
}

/// Every sentence of a data set, a row each.
std::shared_ptr<const SampleSource> sentences(const RecipeConfig& recipe, const DatasetConfig& data,
                                              const std::shared_ptr<const Tokenizer>& tokenizer) {
  return std::make_shared<const TextSource>(open_dataset(data),
                                            TextEncoding(tokenizer, recipe.data.inputs.text));
}

std::shared_ptr<const SampleSource> training_rows(Session& session,
                                                  const std::shared_ptr<const Tokenizer>& tokenizer) {
  const RecipeConfig& recipe = session.recipe;
  SampleSources rows;
  for (const MixConfig& item : recipe.data.training_items())
    rows.push_back(item.files.empty() ? sentences(recipe, item.data, tokenizer)
                                      : windows(recipe, item.files, *tokenizer, Phase::kTrain));
  return training_source(session, rows);
}

/// Null: there is nothing to evaluate on.
std::shared_ptr<const SampleSource> held_out_rows(const RecipeConfig& recipe,
                                                  const std::shared_ptr<const Tokenizer>& tokenizer) {
  if (recipe.evaluates_sentences()) return sentences(recipe, recipe.data.val, tokenizer);
  const std::vector<std::string>& files = recipe.data.val_files;
  return files.empty() ? nullptr : windows(recipe, files, *tokenizer, Phase::kEvaluate);
}

}  // namespace

void open_masked_token(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_metric(recipe, masked_token_metrics({}));
  const auto tokenizer = make_tokenizer(recipe, place);
  recipe.language.vocab_size = tokenizer->vocab_size();
  const TextEncodingConfig& text = recipe.data.inputs.text;
  MaskedTokenTask::Setup setup{
      .config = recipe.masked_token,
      .vocabulary = mask_vocabulary(*tokenizer, text.mask_token, {text.begin_token, text.end_token}),
      .num_tokens = recipe.masked_row_tokens(),
      .padded = recipe.learns_sentences(),
      .tokenizer_json = tokenizer->to_json(),
      .adapter_base = adapter_base_of(recipe)};
  // Equal shapes let a step be recorded.
  const bool on_cpu = place.runtime.device().is_cpu();
  session.loader =
      make_loader(recipe, place, training_rows(session, tokenizer),
                  {.padding_id = tokenizer->padding().value_or(0), .pad_to = on_cpu ? 0 : setup.num_tokens});
  if (place.collective.rank() == 0)
    if (const auto held_out = held_out_rows(recipe, tokenizer))
      setup.evaluate = [held_out, config = setup.config, vocabulary = setup.vocabulary,
                        options = evaluate_options(recipe, place, 16)](const LanguageModel& model) {
        return masked_token_metrics(evaluate_masked_tokens(model, held_out, config, vocabulary, options));
      };
  setup.model = LanguageModel(place.names_only ? narrowed(recipe.language) : recipe.language);
  note_start(session, place,
             place_model(*setup.model, ModelKind::kLanguage, recipe, place, setup.tokenizer_json));
  session.record["inputs"] = config_to_json(recipe.data.inputs);
  session.record["masked_token"] = config_to_json(recipe.masked_token);
  if (recipe.evaluates_sentences())
    note_evaluation_data(session);
  else
    note_evaluation_texts(session);
  session.task = std::make_unique<MaskedTokenTask>(std::move(setup));
}

}  // namespace fathom
