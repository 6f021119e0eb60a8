// How a conversation becomes the tokens of one text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "data/chat/conversation.h"
#include "data/tokenizer/tokenizer.h"

namespace fathom {

enum class ChatTemplateKind {
  kChatMl,  ///< <|im_start|>ROLE\nCONTENT<|im_end|>\n  (OpenAI's ChatML, Qwen)
  kLlama3,  ///< <|start_header_id|>ROLE<|end_header_id|>\n\nCONTENT<|eot_id|>, after one <|begin_of_text|>
};

void chat_template_field(Fields& f, const char* name, ChatTemplateKind& kind);
const char* chat_template_name(ChatTemplateKind kind);  ///< "chatml", "llama3"
/// Errors (kConfig): no such template; those there are are listed.
ChatTemplateKind chat_template_of(const std::string& name);
/// The same as a Jinja template, for other programs (tokenizer_config.json).
std::string chat_template_jinja(ChatTemplateKind kind);
/// The special tokens that a vocabulary must have for it.
std::vector<std::string> chat_tokens(ChatTemplateKind kind);

/// A conversation as tokens, and which of them the assistant said: its texts, each with the mark that ends
/// it.
struct EncodedChat {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> is_answer;
};

/// Immutable, safe from many threads. Headers and contents are encoded apart, so that the prompt is always
/// the beginning of the conversation it opens, and what a content says of special tokens stays plain text.
class ChatTemplate {
 public:
  /// Errors (kConfig): a special token that the vocabulary lacks.
  ChatTemplate(ChatTemplateKind kind, std::shared_ptr<const Tokenizer> tokenizer);

  EncodedChat encode(std::span<const ChatMessage> messages) const;
  /// The messages, and what opens the assistant's answer.
  std::vector<int32_t> prompt(std::span<const ChatMessage> messages) const;
  /// What ends an answer.
  int32_t end_of_turn() const { return end_; }
  ChatTemplateKind kind() const { return kind_; }

 private:
  void open_turn(std::string_view role, EncodedChat& chat) const;
  void add(std::string_view text, bool is_answer, EncodedChat& chat) const;
  void add_special(int32_t token, bool is_answer, EncodedChat& chat) const;

  ChatTemplateKind kind_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::optional<int32_t> begin_;   ///< before the first turn
  int32_t start_ = 0;              ///< before a role
  std::optional<int32_t> middle_;  ///< behind a role
  int32_t end_ = 0;                ///< behind a content
};

}  // namespace fathom
