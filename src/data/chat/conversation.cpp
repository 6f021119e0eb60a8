#include "data/chat/conversation.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "data/readers/json_line.h"
#include "data/readers/text_lines.h"

namespace fathom {
namespace {

constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};

const std::string& text_of(const Json& object, const char* key) {
  const Json& value = object.at(key);
  if (!value.is_string()) fail(ErrorKind::kData, "\"{}\": expected a string, got {}", key, value.kind_name());
  return value.as_string();
}

ChatMessage read_message(const Json& json) {
  if (!json.is_object()) fail(ErrorKind::kData, "\"messages\": expected objects, got {}", json.kind_name());
  ChatMessage message{text_of(json, "role"), text_of(json, "content")};
  if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end())
    fail(ErrorKind::kData, "\"role\": \"{}\" is none of system, user, assistant, tool", message.role);
  return message;
}

std::vector<ChatMessage> read_messages(const Json& row) {
  std::vector<ChatMessage> messages;
  if (const Json* list = row.find("messages")) {
    if (!list->is_array()) fail(ErrorKind::kData, "\"messages\": expected a list, got {}", list->kind_name());
    for (const Json& message : list->as_array()) messages.push_back(read_message(message));
    return messages;
  }
  if (!row.find("prompt") || !row.find("response"))
    fail(ErrorKind::kData, "neither \"messages\" nor \"prompt\" and \"response\"");
  if (row.find("system")) messages.push_back({"system", text_of(row, "system")});
  messages.push_back({"user", text_of(row, "prompt")});
  messages.push_back({"assistant", text_of(row, "response")});
  return messages;
}

Conversation read_conversation(const Line& line, const std::string& source) {
  const Json row = parse_json_line(line);
  if (!row.is_object()) fail(ErrorKind::kData, "expected an object, got {}", row.kind_name());
  Conversation conversation{read_messages(row), source};
  const bool answers = std::any_of(
      conversation.messages.begin(), conversation.messages.end(),
      [](const ChatMessage& message) { return message.role == "assistant" && !message.content.empty(); });
  if (!answers) fail(ErrorKind::kData, "no answer: no message of the assistant's has a text");
  return conversation;
}

}  // namespace

std::vector<Conversation> read_conversations(const std::string& path, DataReport& report) {
  const MappedFile file(path);
  LineReader lines(file.text());
  std::vector<Conversation> conversations;
  while (const auto line = lines.next()) {
    if (line->text.find_first_not_of(" \t") == std::string_view::npos) continue;
    const std::string source = fmt::format("{}:{}", path, line->number);
    try {
      conversations.push_back(read_conversation(*line, source));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kData) throw;
      report.handle({source, error.what()});
    }
  }
  if (conversations.empty()) fail(ErrorKind::kData, "{}: no usable conversations", path);
  return conversations;
}

}  // namespace fathom
