// Conversations as training rows: which answer token follows where.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "batch/sample_source.h"
#include "data/chat/chat_template.h"

namespace fathom {

/// How conversations share rows of the model's length.
enum class ChatLayout {
  kPack,  ///< as many to a row as fit; they do not see each other
  kPad,   ///< one to a row
};

struct ChatConfig {
  std::vector<std::string> train_files;
  std::vector<std::string> val_files;
  ChatTemplateKind chat_template = ChatTemplateKind::kChatMl;
  ChatLayout layout = ChatLayout::kPack;
  bool answers_only = true;
  OnError on_error = OnError::kStop;

  void fields(Fields& f);
};

/// Rows of at most `num_tokens` + 1 tokens (the extra one makes inputs and targets of one row), each with the
/// target of every input: the token that follows, or −1 where it is none of the assistant's. What is longer
/// is cut at its end. Which conversations share a row is fixed: the longest first, each into the row with the
/// least room that suffices.
class ChatSource : public SampleSource {
 public:
  /// Reads and encodes all of `files`. Errors: those of `read_conversations` and `ChatTemplate`; kData when
  /// no answer begins within `num_tokens`.
  ChatSource(const std::vector<std::string>& files, const ChatConfig& config,
             std::shared_ptr<const Tokenizer> tokenizer, int64_t num_tokens);
  int64_t size() const override { return static_cast<int64_t>(rows_.size()); }
  Sample load(int64_t index, int64_t epoch) const override;
  DataReport* report() const override { return report_.get(); }

  int64_t num_conversations() const { return static_cast<int64_t>(chats_.size()); }
  int64_t num_cut() const { return num_cut_; }            ///< longer than a row
  int64_t num_left_out() const { return num_left_out_; }  ///< without an answer within a row
  int64_t num_targets() const { return num_targets_; }

 private:
  void keep(EncodedChat chat, int64_t num_tokens);

  std::shared_ptr<DataReport> report_;
  bool answers_only_;
  std::vector<EncodedChat> chats_;
  std::vector<std::vector<int64_t>> rows_;  ///< the conversations of each
  int64_t num_cut_ = 0;
  int64_t num_left_out_ = 0;
  int64_t num_targets_ = 0;
};

}  // namespace fathom
