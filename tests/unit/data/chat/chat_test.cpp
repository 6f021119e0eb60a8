// Conversations: read, and as tokens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "data/chat/chat_template.h"
#include "data/chat/conversation.h"
#include "data/tokenizer/trainer.h"
#include "temporary_folder.h"

namespace fathom::chat_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Words of single bytes, with the template's tokens.
std::shared_ptr<const Tokenizer> tokenizer_for(ChatTemplateKind kind) {
  TokenizerTrainerConfig config;
  config.vocab_size = 270;
  for (const std::string& token : chat_tokens(kind)) config.special_tokens.push_back(token);
  const std::vector<std::string_view> texts = {"some text of some words"};
  return std::make_shared<const Tokenizer>(train_tokenizer(texts, config));
}

const std::vector<ChatMessage> kTalk = {{"system", "be brief"}, {"user", " hi \n"}, {"assistant", " yo "}};

/// The text of the tokens, and what of it is learned.
std::pair<std::string, std::string> shown(ChatTemplateKind kind, const std::vector<ChatMessage>& messages) {
  const auto tokenizer = tokenizer_for(kind);
  const EncodedChat chat = ChatTemplate(kind, tokenizer).encode(messages);
  EXPECT_EQ(chat.tokens.size(), chat.is_answer.size());
  std::vector<int32_t> answers;
  for (size_t i = 0; i < chat.tokens.size(); ++i)
    if (chat.is_answer[i] != 0) answers.push_back(chat.tokens[i]);
  return {tokenizer->decode(chat.tokens), tokenizer->decode(answers)};
}

TEST(ChatTemplate, ChatMlMarksTurns) {
  const auto [text, answer] = shown(ChatTemplateKind::kChatMl, kTalk);
  EXPECT_EQ(text,
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n hi \n<|im_end|>\n"
            "<|im_start|>assistant\n yo <|im_end|>\n");
  EXPECT_EQ(answer, " yo <|im_end|>");
}

TEST(ChatTemplate, Llama3MarksTurnsAndTrims) {
  const auto [text, answer] = shown(ChatTemplateKind::kLlama3, kTalk);
  EXPECT_EQ(text,
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nyo<|eot_id|>");
  EXPECT_EQ(answer, "yo<|eot_id|>");
}

TEST(ChatTemplate, EveryAnswerIsLearned) {
  const auto [text, answer] =
      shown(ChatTemplateKind::kChatMl,
            {{"user", "a"}, {"assistant", "one"}, {"tool", "t"}, {"user", "b"}, {"assistant", "two"}});
  EXPECT_EQ(answer, "one<|im_end|>two<|im_end|>");
}

TEST(ChatTemplate, APromptIsTheBeginningOfItsConversation) {
  for (const auto kind : {ChatTemplateKind::kChatMl, ChatTemplateKind::kLlama3}) {
    const auto tokenizer = tokenizer_for(kind);
    const ChatTemplate chat(kind, tokenizer);
    const std::vector<int32_t> prompt = chat.prompt(std::span(kTalk).first(2)),
                               whole = chat.encode(kTalk).tokens;
    ASSERT_LT(prompt.size(), whole.size());
    EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), whole.begin()));
    EXPECT_EQ(chat.end_of_turn(), *tokenizer->token_id(chat_tokens(kind).back()));
  }
}

TEST(ChatTemplate, MarksInAContentStayText) {
  const auto kind = ChatTemplateKind::kChatMl;
  const auto tokenizer = tokenizer_for(kind);
  const ChatTemplate chat(kind, tokenizer);
  const auto tokens = chat.prompt(std::vector<ChatMessage>{{"user", "<|im_end|>"}});
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), chat.end_of_turn()), 1);
}

TEST(ChatTemplate, NeedsItsTokens) {
  try {
    ChatTemplate(ChatTemplateKind::kLlama3, tokenizer_for(ChatTemplateKind::kChatMl));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_THAT(error.what(),
                HasSubstr("the chat template llama3 needs <|begin_of_text|>, which the tokenizer lacks"));
  }
  EXPECT_THROW(chat_template_of("alpaca"), Error);
  EXPECT_EQ(chat_template_of("llama3"), ChatTemplateKind::kLlama3);
}

TEST(ChatTemplate, AsJinja) {
  EXPECT_EQ(
      chat_template_jinja(ChatTemplateKind::kChatMl),
      R"({{ '' }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] )"
      R"(+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})");
}

class Conversations : public ::testing::Test {
 protected:
  std::vector<Conversation> read(const std::string& lines, OnError on_error = OnError::kStop) {
    write_file_atomically(folder_ / "c.jsonl", lines);
    DataReport report(on_error, "data.chat");
    auto conversations = read_conversations(folder_ / "c.jsonl", report);
    num_problems_ = report.count();
    return conversations;
  }
  std::string error_of(const std::string& lines) {
    try {
      read(lines);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      return error.what();
    }
    return "no error";
  }
  TemporaryFolder folder_;
  int64_t num_problems_ = 0;
};

TEST_F(Conversations, ComeAsMessagesOrAsPromptAndResponse) {
  const auto read_ones = read(
      R"({"messages": [{"role": "user", "content": "q", "name": "x"}, {"role": "assistant", "content": "a"}], "id": 3})"
      "\n\n"
      R"({"system": "s", "prompt": "p", "response": "r"})"
      "\n");
  ASSERT_EQ(read_ones.size(), 2u);
  EXPECT_EQ(read_ones[0].messages.size(), 2u);
  EXPECT_EQ(read_ones[0].messages[1].content, "a");
  ASSERT_EQ(read_ones[1].messages.size(), 3u);
  EXPECT_EQ(read_ones[1].messages[0].role, "system");
  EXPECT_EQ(read_ones[1].messages[2].content, "r");
  EXPECT_EQ(read_ones[1].source, folder_ / "c.jsonl:3");
}

TEST_F(Conversations, BrokenOnesSayWhatIsWrong) {
  EXPECT_THAT(error_of("[1]\n"),
              HasSubstr("c.jsonl:1: expected an object, got array (data.chat.on_error = \"skip\" leaves"));
  EXPECT_THAT(error_of("{\"text\": \"x\"}\n"),
              HasSubstr("neither \"messages\" nor \"prompt\" and \"response\""));
  EXPECT_THAT(error_of("{\"messages\": 3}\n"), HasSubstr("\"messages\": expected a list, got integer"));
  EXPECT_THAT(error_of("{\"messages\": [3]}\n"), HasSubstr("\"messages\": expected objects, got integer"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "bot", "content": "x"}]})"
                       "\n"),
              HasSubstr("\"role\": \"bot\" is none of system, user, assistant, tool"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user"}]})"
                       "\n"),
              HasSubstr("missing key \"content\""));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user", "content": [1]}]})"
                       "\n"),
              HasSubstr("\"content\": expected a string, got array"));
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user", "content": "x"}]})"
                       "\n"),
              HasSubstr("no answer: "));
  EXPECT_THAT(error_of(R"({"prompt": "x", "response": ""})"
                       "\n"),
              HasSubstr("no answer: "));
  EXPECT_THAT(error_of("{\"prompt\": \"x\", \"resp"), HasSubstr("is the file cut off?"));
  EXPECT_THAT(error_of(""), HasSubstr("no usable conversations"));
  EXPECT_EQ(read("{}\n{\"prompt\": \"x\", \"response\": \"y\"}\n", OnError::kSkip).size(), 1u);
  EXPECT_EQ(num_problems_, 1);
}

}  // namespace
}  // namespace fathom::chat_test
