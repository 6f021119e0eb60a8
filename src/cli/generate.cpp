// fathom generate MODEL "prompt"
#include "runtime/generate.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "base/error.h"
#include "base/utf8_stream.h"
#include "cli/opened_model.h"
#include "cli/verbs.h"
#include "data/chat/chat_template.h"

namespace fathom::cli {
namespace {

struct GenerateArguments {
  ModelOptions model;
  std::string prompt;
  GenerateOptions generate{.sampling = {.temperature = 0.8, .top_k = 50}};
  bool ignores_end = false;
  bool is_chat = false;
  std::string chat_template;  ///< empty: the model's own
  std::string system;         ///< what the model is told before the prompt, in a chat
  bool as_json = false;
};

void add_options(CLI::App& app, GenerateArguments& arguments) {
  add_model_options(app, arguments.model, /*runs_data=*/false);
  GenerateOptions& options = arguments.generate;
  app.add_option("prompt", arguments.prompt, "the text to continue")->required()->type_name("PROMPT");
  app.add_option("--max-tokens", options.max_tokens, "longest answer")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--temperature", options.sampling.temperature, "0: always the most probable token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--top-k", options.sampling.top_k, "draw among so many most probable tokens (0: all)")
      ->check(at_least(0))
      ->capture_default_str();
  app.add_option("--top-p", options.sampling.top_p,
                 "draw among the most probable tokens that reach this probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "the same seed gives the same text")->capture_default_str();
  app.add_flag("--ignore-end", arguments.ignores_end, "go on after the end of a text");
  app.add_flag("--chat", arguments.is_chat,
               "answer the prompt as a user's turn, by the model's chat template");
  app.add_option("--template", arguments.chat_template,
                 "chat template instead of the model's: chatml or llama3")
      ->check(CLI::IsMember({"chatml", "llama3"}));
  app.add_option("--system", arguments.system, "what the model is told before a chat")->type_name("TEXT");
  app.add_flag("--json", arguments.as_json, "print one JSON object");
}

const char* reason_name(GenerationEnd reason) {
  switch (reason) {
    case GenerationEnd::kStopToken:
      return "end_of_text";
    case GenerationEnd::kMaxTokens:
      return "max_tokens";
    case GenerationEnd::kContextFull:
      return "context_full";
  }
  return "";
}

/// Shows the prompt, then tokens as they come. A token's text may depend on those before it, so the whole
/// answer is decoded each time and what is new is shown.
class Streamer {
 public:
  Streamer(const Tokenizer& tokenizer, std::vector<int32_t> prompt)
      : tokenizer_(tokenizer), tokens_(std::move(prompt)) {}

  bool show(int32_t token) {
    tokens_.push_back(token);
    const std::string all = tokenizer_.decode(tokens_);
    // The prompt appears with the first token, when nothing is wrong with it.
    if (all.size() > decoded_) write(stream_.push(std::string_view(all).substr(decoded_)));
    decoded_ = all.size();
    return true;
  }
  void finish() { write(stream_.finish() + "\n"); }

 private:
  static void write(const std::string& text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  }

  const Tokenizer& tokenizer_;
  std::vector<int32_t> tokens_;
  size_t decoded_ = 0;
  Utf8Stream stream_;
};

std::string answer_text(const Tokenizer& tokenizer, std::vector<int32_t> prompt,
                        const std::vector<int32_t>& answer) {
  const size_t start = tokenizer.decode(prompt).size();
  prompt.insert(prompt.end(), answer.begin(), answer.end());
  Utf8Stream stream;
  const std::string text = stream.push(std::string_view(tokenizer.decode(prompt)).substr(start));
  return text + stream.finish();
}

/// Errors (kConfig): a chat with a model that was not trained for one, without --template.
ChatTemplateKind chat_template_for(const OpenedModel& model, const GenerateArguments& arguments) {
  if (!arguments.chat_template.empty()) return chat_template_of(arguments.chat_template);
  const Json* name = model.loaded.extras.record.find("chat_template");
  if (name == nullptr || !name->is_string())
    fail(ErrorKind::kConfig, "{}: the model names no chat template: give --template", model.folder);
  return chat_template_of(name->as_string());
}

/// What the model reads before it writes.
struct Prompt {
  std::vector<int32_t> shown;  ///< as text before the answer; none in a chat
  std::vector<int32_t> context;
};

Prompt read_prompt(const OpenedModel& model, GenerateArguments& arguments) {
  const auto tokenizer = model.require_tokenizer();
  if (arguments.is_chat || !arguments.chat_template.empty() || !arguments.system.empty()) {
    const ChatTemplate chat(chat_template_for(model, arguments), tokenizer);
    std::vector<ChatMessage> messages;
    if (!arguments.system.empty()) messages.push_back({"system", arguments.system});
    messages.push_back({"user", arguments.prompt});
    if (!arguments.ignores_end) arguments.generate.stop_token = chat.end_of_turn();
    return {{}, chat.prompt(messages)};
  }
  Prompt prompt{tokenizer->encode(arguments.prompt), tokenizer->prefix()};
  prompt.context.insert(prompt.context.end(), prompt.shown.begin(), prompt.shown.end());
  if (!arguments.ignores_end) arguments.generate.stop_token = tokenizer->end_of_text();
  return prompt;
}

}  // namespace

int run_generate(int argc, const char* const* argv) {
  VerbApp app("generate", "Continues a text.");
  GenerateArguments arguments;
  add_options(app, arguments);
  if (!parse_options(app, argc, argv)) return 0;

  const OpenedModel model = open_model(arguments.model);
  LanguageModel language = model.language("generate");
  // Once, and not for every token; and what decodes all layers at once takes weights of one type.
  if (model.evaluate.compute_dtype) language->to(*model.evaluate.compute_dtype);
  const auto tokenizer = model.require_tokenizer();
  const auto [prompt, context] = read_prompt(model, arguments);
  require_known_tokens(torch::tensor(context, at::kLong), language->config().vocab_size);
  arguments.generate.compute_dtype = model.evaluate.compute_dtype;
  if (!arguments.as_json) {
    Streamer streamer(*tokenizer, prompt);
    generate(language, context, arguments.generate, [&](int32_t token) { return streamer.show(token); });
    streamer.finish();
    return 0;
  }
  const auto start = std::chrono::steady_clock::now();
  const Generation answer = generate(language, context, arguments.generate);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  print_json(Json::Object{{"prompt", arguments.prompt},
                          {"text", answer_text(*tokenizer, prompt, answer.tokens)},
                          {"prompt_tokens", static_cast<int64_t>(context.size())},
                          {"tokens", static_cast<int64_t>(answer.tokens.size())},
                          {"reason", reason_name(answer.reason)},
                          {"seconds", seconds}});
  return 0;
}

}  // namespace fathom::cli
