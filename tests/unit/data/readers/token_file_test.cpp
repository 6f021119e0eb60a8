#include "data/readers/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "data/tokenizer/trainer.h"
#include "temporary_folder.h"

namespace fathom::token_file_test {
namespace {

using ::testing::HasSubstr;

constexpr const char* kText =
    "a first text\nof two lines\n<|endoftext|>\na second, with <|endoftext|> "
    "inside\n<|endoftext|>\n\nthird\n";

Tokenizer train(const std::vector<std::string>& special = {"<|endoftext|>"}) {
  TokenizerTrainerConfig config;
  config.vocab_size = 280;
  config.special_tokens = special;
  const std::vector<std::string_view> texts = {"a first text of two lines, a second text and a third text"};
  return train_tokenizer(texts, config);
}

class TokenFileTest : public ::testing::Test {
 protected:
  TokenFile open(const std::string& text) {
    write_file_atomically(path_, text);
    return TokenFile::open(path_, tokenizer_, folder_ / "cache");
  }
  int64_t num_caches() const {
    return std::distance(std::filesystem::directory_iterator(folder_ / "cache"),
                         std::filesystem::directory_iterator());
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "text.txt";
  Tokenizer tokenizer_ = train();
};

TEST_F(TokenFileTest, TokensCoverEveryByte) {
  const TokenFile file = open(kText);
  EXPECT_EQ(file.text_bytes(), static_cast<int64_t>(std::string(kText).size()));
  EXPECT_EQ(file.num_documents(), 3);
  const int32_t separator = *tokenizer_.end_of_text();
  EXPECT_EQ(std::count(file.tokens().begin(), file.tokens().end(), separator), 2);
  std::string back;
  for (const int32_t id : file.tokens())
    back += id == separator ? "<|endoftext|>\n" : tokenizer_.decode(std::span(&id, 1));
  EXPECT_EQ(back, kText);
}

TEST_F(TokenFileTest, CacheIsMadeOnceForATextAndATokenizer) {
  const TokenFile first = open(kText);
  const auto written = std::filesystem::last_write_time(first.cache_path());
  EXPECT_EQ(open(kText).cache_path(), first.cache_path());
  EXPECT_EQ(std::filesystem::last_write_time(first.cache_path()), written);
  EXPECT_EQ(num_caches(), 1);
  EXPECT_NE(open("other\n").cache_path(), first.cache_path());
  tokenizer_ = train({"<|endoftext|>", "<|pad|>"});
  EXPECT_NE(open(kText).cache_path(), first.cache_path());
  EXPECT_EQ(num_caches(), 3);
}

TEST_F(TokenFileTest, TornCacheIsMadeAnew) {
  const TokenFile first = open(kText);
  const std::string cache = first.cache_path();
  const std::vector<int32_t> tokens(first.tokens().begin(), first.tokens().end());
  write_file_atomically(cache, read_file(cache).substr(0, 60));
  const TokenFile again = open(kText);
  EXPECT_EQ(std::vector<int32_t>(again.tokens().begin(), again.tokens().end()), tokens);
  write_file_atomically(cache, "short");
  EXPECT_EQ(open(kText).size(), static_cast<int64_t>(tokens.size()));
}

TEST_F(TokenFileTest, HalfCachesOfKilledProcessesAreRemovedADayLater) {
  const std::string cache = folder_ / "cache";
  std::filesystem::create_directories(cache);
  const auto hours_old = [&](const std::string& name, int hours) {
    write_file_atomically(cache + "/" + name, "half");
    std::filesystem::last_write_time(
        cache + "/" + name, std::filesystem::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  hours_old("a-0.tokens.1.1.tmp", 25);
  hours_old("b-0.tokens.1.1.tmp", 23);
  hours_old("somebody-elses.tmp", 25);
  hours_old("c-0.tokens", 25);
  open(kText);
  EXPECT_FALSE(std::filesystem::exists(cache + "/a-0.tokens.1.1.tmp"));
  EXPECT_EQ(num_caches(), 4) << "one is being written, others are no half caches";
}

TEST_F(TokenFileTest, SeparatorsAtTheEndsAndWithCarriageReturns) {
  const TokenFile file = open("<|endoftext|>\r\nx<|endoftext|>\n<|endoftext|>");
  EXPECT_EQ(file.num_documents(), 1);
  EXPECT_EQ(std::count(file.tokens().begin(), file.tokens().end(), *tokenizer_.end_of_text()), 2);
}

TEST_F(TokenFileTest, BadTextNamesItsLine) {
  const auto reason = [&](const std::string& text) -> std::string {
    try {
      open(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(reason("fine\nbad \xFF\n"), HasSubstr("text.txt:2: byte 10 of the file is not valid UTF-8"));
  tokenizer_ = train({});
  EXPECT_THAT(reason(kText), HasSubstr("the tokenizer has no end-of-text token"));
  EXPECT_EQ(reason("no separators\n"), "");
  EXPECT_EQ(num_caches(), 1) << "nothing is left of the failed ones";
}

}  // namespace
}  // namespace fathom::token_file_test
