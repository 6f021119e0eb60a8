#include "data/chat/chat_template.h"

#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

/// A template's texts and tokens; an empty token is none.
struct Layout {
  ChatTemplateKind kind;
  const char* name;
  const char *begin, *start, *middle, *end;
  const char* after_role;
  const char* after_turn;
  bool trims;  ///< blanks around a content are dropped
};

constexpr Layout kLayouts[] = {
    {ChatTemplateKind::kChatMl, "chatml", "", "<|im_start|>", "", "<|im_end|>", "\n", "\n", false},
    {ChatTemplateKind::kLlama3, "llama3", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
     "<|eot_id|>", "\n\n", "", true},
};

const Layout& layout_of(ChatTemplateKind kind) {
  for (const Layout& layout : kLayouts)
    if (layout.kind == kind) return layout;
  FATHOM_CHECK(false, "[chat_template] unknown kind {}", static_cast<int>(kind));
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return "";
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

}  // namespace

void chat_template_field(Fields& f, const char* name, ChatTemplateKind& kind) {
  f.choice(name, kind, "how turns are marked; its special tokens must be in the vocabulary",
           {{"chatml", ChatTemplateKind::kChatMl}, {"llama3", ChatTemplateKind::kLlama3}});
}

const char* chat_template_name(ChatTemplateKind kind) {
  return layout_of(kind).name;
}

ChatTemplateKind chat_template_of(const std::string& name) {
  for (const Layout& layout : kLayouts)
    if (name == layout.name) return layout.kind;
  fail(ErrorKind::kConfig, "chat template \"{}\": there are chatml and llama3", name);
}

std::string chat_template_jinja(ChatTemplateKind kind) {
  const Layout& layout = layout_of(kind);
  const auto quoted = [](std::string text) {
    for (size_t place = 0; (place = text.find('\n', place)) != std::string::npos; place += 2)
      text.replace(place, 1, "\\n");
    return "'" + text + "'";
  };
  const std::string header = std::string(layout.middle) + layout.after_role;
  const std::string content = layout.trims ? "(message['content'] | trim)" : "message['content']";
  return fmt::format(
      "{{{{ {} }}}}{{% for message in messages %}}{{{{ {} + message['role'] + {} + {} + {} }}}}{{% endfor %}}"
      "{{% if add_generation_prompt %}}{{{{ {} }}}}{{% endif %}}",
      quoted(layout.begin), quoted(layout.start), quoted(header), content,
      quoted(std::string(layout.end) + layout.after_turn),
      quoted(layout.start + std::string("assistant") + header));
}

std::vector<std::string> chat_tokens(ChatTemplateKind kind) {
  const Layout& layout = layout_of(kind);
  std::vector<std::string> tokens;
  for (const std::string token : {layout.begin, layout.start, layout.middle, layout.end})
    if (!token.empty()) tokens.push_back(token);
  return tokens;
}

ChatTemplate::ChatTemplate(ChatTemplateKind kind, std::shared_ptr<const Tokenizer> tokenizer)
    : kind_(kind), tokenizer_(std::move(tokenizer)) {
  const Layout& layout = layout_of(kind);
  const auto token = [&](const std::string& text) -> std::optional<int32_t> {
    if (text.empty()) return std::nullopt;
    if (const auto id = tokenizer_->token_id(text)) return id;
    fail(ErrorKind::kConfig, "the chat template {} needs {}, which the tokenizer lacks", layout.name, text);
  };
  begin_ = token(layout.begin);
  start_ = *token(layout.start);
  middle_ = token(layout.middle);
  end_ = *token(layout.end);
}

void ChatTemplate::add_special(int32_t token, bool is_answer, EncodedChat& chat) const {
  chat.tokens.push_back(token);
  chat.is_answer.push_back(is_answer ? 1 : 0);
}

void ChatTemplate::add(std::string_view text, bool is_answer, EncodedChat& chat) const {
  tokenizer_->encode(text, chat.tokens);
  chat.is_answer.resize(chat.tokens.size(), is_answer ? 1 : 0);
}

void ChatTemplate::open_turn(std::string_view role, EncodedChat& chat) const {
  if (begin_ && chat.tokens.empty()) add_special(*begin_, false, chat);
  add_special(start_, false, chat);
  add(role, false, chat);
  if (middle_) add_special(*middle_, false, chat);
  add(layout_of(kind_).after_role, false, chat);
}

EncodedChat ChatTemplate::encode(std::span<const ChatMessage> messages) const {
  const Layout& layout = layout_of(kind_);
  EncodedChat chat;
  for (const ChatMessage& message : messages) {
    const bool is_answer = message.role == "assistant";
    open_turn(message.role, chat);
    add(layout.trims ? trim(message.content) : std::string_view(message.content), is_answer, chat);
    add_special(end_, is_answer, chat);
    add(layout.after_turn, false, chat);
  }
  return chat;
}

std::vector<int32_t> ChatTemplate::prompt(std::span<const ChatMessage> messages) const {
  EncodedChat chat = encode(messages);
  open_turn("assistant", chat);
  return chat.tokens;
}

}  // namespace fathom
