#include <torch/torch.h>

#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "evaluate/chat.h"
#include "evaluate/language.h"
#include "models/narrowed.h"
#include "train/session_model.h"
#include "train/session_parts.h"
#include "train/task/language.h"

namespace fathom {
namespace {

std::shared_ptr<const SampleSource> training_windows(const RecipeConfig& recipe,
                                                     const std::vector<std::string>& paths,
                                                     const Tokenizer& tokenizer) {
  std::vector<TokenFile> files;
  for (const std::string& path : paths) files.push_back(TokenFile::open(path, tokenizer));
  return std::make_shared<const TokenWindowSource>(std::move(files), recipe.language.max_positions,
                                                   Phase::kTrain, recipe.seed,
                                                   tokenizer.end_of_text().value_or(0));
}

/// Bits per byte of each file by its name, and of all together.
Metrics language_metrics(const LanguageReports& reports) {
  Metrics metrics;
  for (const auto& [name, report] : reports.files)
    metrics["bits_per_byte/" + name] = {report.bits_per_byte(), false};
  const LanguageReport all = reports.all();
  metrics["bits_per_byte"] = {all.bits_per_byte(), false};
  metrics["perplexity"] = {all.perplexity(), false};
  if (all.density) metrics["density"] = {*all.density, false};
  return metrics;
}

std::shared_ptr<const SampleSource> chat_rows(const RecipeConfig& recipe,
                                              const std::vector<std::string>& paths,
                                              const std::shared_ptr<const Tokenizer>& tokenizer,
                                              const SessionPlace& place) {
  const auto rows =
      std::make_shared<const ChatSource>(paths, recipe.data.chat, tokenizer, recipe.language.max_positions);
  if (place.collective.rank() == 0)
    log::info("{} conversations in {} rows, {} tokens to learn; {} cut, {} left out without an answer",
              rows->num_conversations(), rows->size(), rows->num_targets(), rows->num_cut(),
              rows->num_left_out());
  return rows;
}

std::shared_ptr<const SampleSource> language_rows(Session& session,
                                                  const std::shared_ptr<const Tokenizer>& tokenizer,
                                                  const SessionPlace& place) {
  const RecipeConfig& recipe = session.recipe;
  SampleSources rows;
  for (const MixConfig& item : recipe.data.training_items())
    rows.push_back(item.files.empty() ? chat_rows(recipe, item.chat_files, tokenizer, place)
                                      : training_windows(recipe, item.files, *tokenizer));
  return training_source(session, rows);
}

void add_chat_metrics(Metrics& metrics, const ChatReport& report) {
  metrics["answer_nats"] = {report.nats_per_token(), false};
  metrics["answer_accuracy"] = {report.accuracy(), true};
}

/// Of the first held-out window, where there are gates and texts; else null.
std::shared_ptr<GateAgreement> gate_agreement(const LanguageModelConfig& config, const NamedWindows& texts) {
  if (!config.gate.gates() || texts.empty()) return nullptr;
  const Sample sample = texts.begin()->second->load(0, 0);
  const std::vector<int32_t>& row = sample.token_rows.front();
  return std::make_shared<GateAgreement>(
      torch::tensor(std::vector<int64_t>(row.begin(), row.end() - 1)).unsqueeze(0));
}

/// Of texts and of conversations, as far as there are any.
void add_evaluation(LanguageTask::Setup& setup, const RecipeConfig& recipe,
                    const std::shared_ptr<const Tokenizer>& tokenizer, const EvaluateOptions& options) {
  const ChatConfig& chat = recipe.data.chat;
  if (recipe.data.val_files.empty() && chat.val_files.empty()) return;
  const NamedWindows texts = open_texts(recipe.data.val_files, *tokenizer, recipe.language.max_positions);
  std::shared_ptr<const ChatSource> chats;
  if (!chat.val_files.empty())
    chats =
        std::make_shared<const ChatSource>(chat.val_files, chat, tokenizer, recipe.language.max_positions);
  setup.agreement = gate_agreement(recipe.language, texts);
  setup.evaluate = [texts, chats, options, agreement = setup.agreement,
                    padding = tokenizer->padding().value_or(0)](const LanguageModel& model) {
    Metrics metrics;
    if (!texts.empty()) metrics = language_metrics(evaluate_language(model, texts, options));
    if (agreement)
      if (const auto share = agreement->measure(model, options)) metrics["gate_agreement"] = {*share, true};
    if (chats) add_chat_metrics(metrics, evaluate_chat(model, chats, padding, options));
    return metrics;
  };
}

void check_language_metric(const RecipeConfig& recipe) {
  LanguageReports reports;
  for (const std::string& name : text_names(recipe.data.val_files)) reports.files[name] = {};
  Metrics figures;
  if (!reports.files.empty()) figures = language_metrics(reports);
  if (!recipe.data.chat.val_files.empty()) add_chat_metrics(figures, {});
  if (!figures.empty()) check_metric(recipe, figures);
}

}  // namespace

void open_language(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_language_metric(recipe);
  const auto tokenizer = make_tokenizer(recipe, place);
  recipe.language.vocab_size = tokenizer->vocab_size();
  CollateConfig collate{.padding_id = tokenizer->padding().value_or(0)};
  // Equal shapes let a step be recorded.
  const bool learns_chats = !recipe.data.training_chats().empty();
  if (learns_chats && !place.runtime.device().is_cpu()) collate.pad_to = recipe.language.max_positions + 1;
  session.loader = make_loader(recipe, place, language_rows(session, tokenizer, place), collate);
  LanguageTask::Setup setup{.num_tokens = recipe.language.max_positions,
                            .tokenizer_json = tokenizer->to_json(),
                            .adapter_base = adapter_base_of(recipe)};
  if (place.collective.rank() == 0)
    add_evaluation(setup, recipe, tokenizer, evaluate_options(recipe, place, 16));
  if (learns_chats) {
    if (!recipe.data.chat.val_files.empty()) setup.default_metric = "answer_nats";
    session.record["chat_template"] = chat_template_name(recipe.data.chat.chat_template);
  }
  setup.model = LanguageModel(place.names_only ? narrowed(recipe.language) : recipe.language);
  note_start(session, place,
             place_model(*setup.model, ModelKind::kLanguage, recipe, place, setup.tokenizer_json));
  note_evaluation_texts(session);
  session.task = std::make_unique<LanguageTask>(std::move(setup));
}

}  // namespace fathom
