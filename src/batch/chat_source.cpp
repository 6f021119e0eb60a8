#include "batch/chat_source.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

/// Best fit, the longest first: the items of each row.
std::vector<std::vector<int64_t>> pack(const std::vector<int64_t>& lengths, int64_t capacity) {
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });
  std::vector<std::vector<int64_t>> rows;
  std::multimap<int64_t, size_t> by_room;
  for (const int64_t item : order) {
    const int64_t length = lengths[static_cast<size_t>(item)];
    auto place = by_room.lower_bound(length);
    size_t row = rows.size();
    int64_t room = capacity;
    if (place == by_room.end()) {
      rows.emplace_back();
    } else {
      std::tie(room, row) = *place;
      by_room.erase(place);
    }
    rows[row].push_back(item);
    by_room.emplace(room - length, row);
  }
  return rows;
}

}  // namespace

void ChatConfig::fields(Fields& f) {
  f("train_files", train_files,
    "conversations to learn answers from, JSON Lines of \"messages\" or of \"prompt\" and \"response\"; "
    "given, "
    "they take the place of data.train_files");
  f("val_files", val_files, "held-out conversations");
  chat_template_field(f, "template", chat_template);
  f.choice("layout", layout, "conversations of a row: as many as fit, unseen by each other, or one",
           {{"pack", ChatLayout::kPack}, {"pad", ChatLayout::kPad}});
  f("answers_only", answers_only, "learn what the assistant says, not what it is told");
  f.choice("on_error", on_error,
           "a conversation that cannot be read: stop there, or leave it out and count it",
           {{"stop", OnError::kStop}, {"skip", OnError::kSkip}});
}

ChatSource::ChatSource(const std::vector<std::string>& files, const ChatConfig& config,
                       std::shared_ptr<const Tokenizer> tokenizer, int64_t num_tokens)
    : report_(std::make_shared<DataReport>(config.on_error, "data.chat")),
      answers_only_(config.answers_only) {
  const ChatTemplate chat_template(config.chat_template, std::move(tokenizer));
  for (const std::string& file : files)
    for (const Conversation& conversation : read_conversations(file, *report_))
      keep(chat_template.encode(conversation.messages), num_tokens);
  if (chats_.empty())
    fail(ErrorKind::kData, "{}: no answer begins within the model's {} tokens", files.front(), num_tokens);
  std::vector<int64_t> lengths;
  for (const EncodedChat& chat : chats_) lengths.push_back(static_cast<int64_t>(chat.tokens.size()));
  if (config.layout == ChatLayout::kPack) {
    rows_ = pack(lengths, num_tokens + 1);
  } else {
    for (int64_t i = 0; i < num_conversations(); ++i) rows_.push_back({i});
  }
}

void ChatSource::keep(EncodedChat chat, int64_t num_tokens) {
  const auto most = static_cast<size_t>(num_tokens + 1);
  if (chat.tokens.size() > most) {
    ++num_cut_;
    chat.tokens.resize(most);
    chat.is_answer.resize(most);
  }
  // Nothing stands before the first token that could foretell it.
  const auto answers = std::count(chat.is_answer.begin() + 1, chat.is_answer.end(), 1);
  if (answers == 0) {
    ++num_left_out_;
    return;
  }
  num_targets_ += answers_only_ ? answers : static_cast<int64_t>(chat.tokens.size()) - 1;
  chats_.push_back(std::move(chat));
}

Sample ChatSource::load(int64_t index, int64_t) const {
  Sample sample{.index = index};
  std::vector<int32_t>& tokens = sample.token_rows.emplace_back();
  int32_t segment = 0;
  for (const int64_t item : rows_[static_cast<size_t>(index)]) {
    const EncodedChat& chat = chats_[static_cast<size_t>(item)];
    for (size_t i = 0; i < chat.tokens.size(); ++i) {
      const bool learned = i > 0 && (!answers_only_ || chat.is_answer[i] != 0);
      // The first token of a conversation is no target of the one before it.
      if (!tokens.empty()) sample.targets.push_back(learned ? chat.tokens[i] : -1);
      if (!tokens.empty()) sample.segments.push_back(i > 0 ? segment : segment - 1);
      tokens.push_back(chat.tokens[i]);
    }
    ++segment;
  }
  return sample;
}

}  // namespace fathom
