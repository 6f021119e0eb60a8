#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "data/readers/token_file.h"
#include "train/run_folder.h"
#include "train/session_parts.h"

namespace fathom {
namespace {

/// Views into what they were read from.
struct TrainingTexts {
  std::vector<std::string_view> texts;
  std::vector<MappedFile> files;
  std::vector<Conversation> conversations;
  std::vector<std::shared_ptr<const Dataset>> sets;

  void add_files(const DataConfig& data) {
    for (const std::string& path : data.training_texts()) texts.push_back(files.emplace_back(path).text());
    DataReport report(data.chat.on_error, "data.chat");
    for (const std::string& path : data.training_chats())
      for (Conversation& conversation : read_conversations(path, report))
        conversations.push_back(std::move(conversation));
    for (const Conversation& conversation : conversations)
      for (const ChatMessage& message : conversation.messages) texts.push_back(message.content);
  }
  /// Errors (kData): records without words, and no other text.
  void add_records(const RecipeConfig& recipe) {
    sets = open_training_sets(recipe);
    for (const auto& dataset : sets) {
      for (const Record& record : dataset->records()) {
        texts.insert(texts.end(), record.captions.begin(), record.captions.end());
        if (record.captions.empty() && !record.text.empty()) texts.push_back(record.text);
        if (!record.question.empty()) texts.push_back(record.question);
        texts.insert(texts.end(), record.answers.begin(), record.answers.end());
      }
    }
    if (texts.empty() && !sets.empty())
      fail(ErrorKind::kData,
           "{}: no captions or questions to train a tokenizer from (of shards: .txt members; of COCO: "
           "\"annotations\")",
           sets.front()->path());
  }
};

Tokenizer read_or_train(const RecipeConfig& recipe) {
  if (!recipe.tokenizer.path.empty()) return Tokenizer::from_file(recipe.tokenizer.path);
  if (!recipe.init_from.empty()) return Tokenizer::from_file(recipe.init_from + "/tokenizer.json");
  log::info("training a tokenizer of {} tokens", recipe.tokenizer.train.vocab_size);
  TrainingTexts read;
  if (recipe.task == TaskKind::kLanguage || recipe.task == TaskKind::kMaskedToken)
    read.add_files(recipe.data);
  if (recipe.task != TaskKind::kLanguage) read.add_records(recipe);
  return train_tokenizer(read.texts, recipe.tokenizer.train);
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
