// Conversations to learn answers from.
#pragma once

#include <string>
#include <vector>

#include "data/readers/data_report.h"

namespace fathom {

/// `role`: "system", "user", "assistant" or "tool".
struct ChatMessage {
  std::string role;
  std::string content;
};

struct Conversation {
  std::vector<ChatMessage> messages;
  std::string source;  ///< "FILE:LINE"
};

/// Reads JSON Lines of {"messages": [{"role", "content"}, …]} or {"prompt", "response"} (with an optional
/// "system"); other keys are passed over. Errors (kData, "FILE:LINE: reason"): a line that is no such object,
/// an unknown role, a conversation without an answer: as `report` handles them. kData when none is left.
std::vector<Conversation> read_conversations(const std::string& path, DataReport& report);

}  // namespace fathom
