#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "data/readers/token_file.h"
#include "train/run_folder.h"
#include "train/session.h"

namespace fathom {
namespace {

Tokenizer train_from_files(const RecipeConfig& recipe) {
  std::vector<MappedFile> files;
  std::vector<std::string_view> texts;
  for (const std::string& path : recipe.data.training_texts())
    texts.push_back(files.emplace_back(path).text());
  std::vector<Conversation> conversations;
  DataReport report(recipe.data.chat.on_error, "data.chat");
  for (const std::string& path : recipe.data.training_chats())
    for (Conversation& conversation : read_conversations(path, report))
      conversations.push_back(std::move(conversation));
  for (const Conversation& conversation : conversations)
    for (const ChatMessage& message : conversation.messages) texts.push_back(message.content);
  return train_tokenizer(texts, recipe.tokenizer.train);
}

Tokenizer train_from_records(const RecipeConfig& recipe) {
  std::vector<std::unique_ptr<Dataset>> sets;
  std::vector<std::string_view> texts;
  for (const DatasetConfig& config : recipe.data.training_sets()) {
    sets.push_back(open_dataset(config));
    for (const Record& record : sets.back()->records()) {
      texts.insert(texts.end(), record.captions.begin(), record.captions.end());
      if (record.captions.empty() && !record.text.empty()) texts.push_back(record.text);
      if (!record.question.empty()) texts.push_back(record.question);
      texts.insert(texts.end(), record.answers.begin(), record.answers.end());
    }
  }
  if (texts.empty())
    fail(ErrorKind::kData, "{}: no captions or questions to train a tokenizer from", sets.front()->path());
  return train_tokenizer(texts, recipe.tokenizer.train);
}

Tokenizer read_or_train(const RecipeConfig& recipe) {
  if (!recipe.tokenizer.path.empty()) return Tokenizer::from_file(recipe.tokenizer.path);
  if (!recipe.init_from.empty()) return Tokenizer::from_file(recipe.init_from + "/tokenizer.json");
  log::info("training a tokenizer of {} tokens", recipe.tokenizer.train.vocab_size);
  const bool reads_files = recipe.task == TaskKind::kLanguage ||
                           (recipe.task == TaskKind::kMaskedToken && !recipe.masks_sentences());
  return reads_files ? train_from_files(recipe) : train_from_records(recipe);
}

}  // namespace

std::shared_ptr<const Tokenizer> make_tokenizer(const RecipeConfig& recipe, const SessionPlace& place) {
  const std::string kept = place.run_folder.empty() ? "" : RunFolder{place.run_folder}.tokenizer();
  const bool is_main = place.collective.rank() == 0;
  if (!is_main) place.collective.barrier();
  // Rank 0 does not trust what an attempt that came to nothing has left.
  const bool takes_kept = (place.goes_on || !is_main) && !kept.empty() && std::filesystem::exists(kept);
  auto tokenizer =
      std::make_shared<const Tokenizer>(takes_kept ? Tokenizer::from_file(kept) : read_or_train(recipe));
  if (is_main && !takes_kept && !kept.empty()) write_file_atomically(kept, tokenizer->to_json());
  if (is_main) place.collective.barrier();
  return tokenizer;
}

}  // namespace fathom
