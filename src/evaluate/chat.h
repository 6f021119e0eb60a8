// How well a language model foretells the answers of conversations.
#pragma once

#include <cstdint>
#include <memory>

#include "base/json.h"
#include "batch/chat_source.h"
#include "evaluate/options.h"
#include "models/language/model.h"

namespace fathom {

struct ChatReport {
  double nats = 0;      ///< total −ln p of the tokens that were to be foretold
  int64_t correct = 0;  ///< those that were the most probable
  int64_t tokens = 0;

  double nats_per_token() const;
  double accuracy() const;  ///< percent
  /// {"answer_nats", "answer_accuracy", "tokens"}
  Json to_json() const;
};

/// Over every row once, with the right tokens before each. REQUIRES a model on `options.device`, which is put
/// into evaluation mode. Errors (kCheckpoint): tokens that the vocabulary lacks.
ChatReport evaluate_chat(LanguageModel model, std::shared_ptr<const ChatSource> conversations,
                         int64_t padding_id, const EvaluateOptions& options = {});

}  // namespace fathom
