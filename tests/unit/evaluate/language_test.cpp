#include "evaluate/language.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "byte_tokenizer.h"
#include "evaluate/model_inputs.h"
#include "nn/init.h"
#include "temporary_folder.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"

namespace fathom::language_test {
namespace {

constexpr int64_t kWindow = 16;

LanguageModel toy_model() {
  LanguageModel model(LanguageModelConfig{
      .vocab_size = 257, .dim = 32, .layers = 2, .heads = 4, .kv_heads = 2, .max_positions = kWindow});
  init_parameters(*model, 3);
  return model;
}

std::shared_ptr<const TokenWindowSource> windows_of(const TemporaryFolder& folder, const std::string& text) {
  write_file_atomically(folder / "text.txt", text);
  std::vector<TokenFile> files;
  files.push_back(TokenFile::open(folder / "text.txt", byte_tokenizer(), folder.path()));
  return std::make_shared<const TokenWindowSource>(std::move(files), kWindow, Phase::kEvaluate, 0, 256);
}

TEST(Language, BitsPerByteAreTheManualSumOverWindows) {
  const TemporaryFolder folder;
  const std::string text = "The fox, the dog; the end of all things.";  // 40 bytes: windows of 16, 16 and 8
  LanguageModel model = toy_model();
  const LanguageReport report =
      evaluate_language(model, windows_of(folder, text), {.batch_size = 2, .workers = 0});
  EXPECT_EQ(report.tokens, 40);
  EXPECT_EQ(report.bytes, 40);

  double nats = 0;
  for (size_t start = 0; start < text.size(); start += kWindow) {
    std::vector<int64_t> input = {start == 0 ? 256 : static_cast<int64_t>(text[start - 1])};
    const size_t size = std::min<size_t>(kWindow, text.size() - start);
    for (size_t i = 0; i + 1 < size; ++i) input.push_back(text[start + i]);
    const auto logits = model->forward(at::tensor(input, at::kLong).unsqueeze(0))[0].to(at::kDouble);
    const auto log_p = at::log_softmax(logits, 1);
    for (size_t i = 0; i < size; ++i)
      nats -= log_p[static_cast<int64_t>(i)][static_cast<int64_t>(text[start + i])].item<double>();
  }
  EXPECT_NEAR(report.nats, nats, 1e-4 * nats);
  EXPECT_NEAR(report.bits_per_byte(), nats / std::numbers::ln2 / 40, 1e-4);
  EXPECT_NEAR(report.perplexity(), std::exp(nats / 40), 0.05);
}

TEST(Language, TheTokenizerOfAnotherModelIsRefused) {
  const TemporaryFolder folder;
  LanguageModel model(
      LanguageModelConfig{.vocab_size = 116, .dim = 32, .layers = 1, .heads = 4, .max_positions = kWindow});
  init_parameters(*model, 3);
  const auto windows = windows_of(folder, "sits");  // t is byte 116
  try {
    evaluate_language(model, windows, {.batch_size = 1, .workers = 0});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    EXPECT_STREQ(
        error.what(),
        "the text has token 256, outside the model's vocabulary of 116: its tokenizer is another model's");
  }
  EXPECT_NO_THROW(require_known_tokens(at::tensor({3, 115}, at::kLong), 116));
  EXPECT_THROW(require_known_tokens(at::tensor({3, 116}, at::kLong), 116), Error);
}

TEST(Language, BatchesChangeNothing) {
  const TemporaryFolder folder;
  const auto windows = windows_of(folder, std::string(150, 'x') + "<|endo" + std::string(77, 'y'));
  LanguageModel model = toy_model();
  const double one = evaluate_language(model, windows, {.batch_size = 1, .workers = 0}).nats;
  const double many = evaluate_language(model, windows, {.batch_size = 64, .workers = 2}).nats;
  EXPECT_NEAR(one, many, 1e-4 * one);
}

TEST(Language, NamesTellTextsApart) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(text_names({"a/wiki.txt", "b/news.txt"}), (Names{"wiki", "news"}));
  EXPECT_EQ(text_names({"val.txt", "val.md", "news.txt"}), (Names{"val.txt", "val.md", "news.txt"}));
  EXPECT_EQ(text_names({"a/de/val.txt", "a/en/val.txt"}), (Names{"de/val.txt", "en/val.txt"}));
  EXPECT_EQ(text_names({"/a/x/val", "/b/x/val"}), (Names{"a/x/val", "b/x/val"}));
  EXPECT_EQ(text_names({"/val", "/b/val"}), (Names{"val", "b/val"}));
  EXPECT_EQ(text_names({}), Names{});
  for (const char* same : {"val.txt", "./val.txt", "b/../val.txt", "val.txt/"}) {
    try {
      text_names({"val.txt", same});
      FAIL() << same;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConfig);
      EXPECT_EQ(error.what(), std::string("val.txt and ") + same + " are the same text");
    }
  }
}

TEST(Language, SeveralTextsAreMeasuredEachAndTogether) {
  const TemporaryFolder folder;
  ::setenv("FATHOM_CACHE", folder.path().c_str(), 1);
  write_file_atomically(folder / "one.txt", std::string(50, 'x'));
  write_file_atomically(folder / "two.txt", "A fox and a dog.");
  LanguageModel model = toy_model();
  const auto measure = [&](const std::vector<std::string>& paths) {
    return evaluate_language(model, open_texts(paths, byte_tokenizer(), kWindow), {.workers = 0});
  };
  const LanguageReports both = measure({folder / "one.txt", folder / "two.txt"});
  const Json one = measure({folder / "one.txt"}).to_json(), json = both.to_json();
  ::unsetenv("FATHOM_CACHE");
  EXPECT_EQ(one.find("files"), nullptr);
  EXPECT_EQ(json.at("task").as_string(), "language");
  EXPECT_EQ(json.at("bytes").as_int(), 66);
  EXPECT_EQ(json.at("files").at("two").at("bytes").as_int(), 16);
  EXPECT_EQ(json.at("files").at("one").at("bits_per_byte"), one.at("bits_per_byte"));
  EXPECT_EQ(json.at("files").at("one").find("task"), nullptr);
  EXPECT_NEAR(json.at("bits_per_byte").as_double() * 66,
              both.files.at("one").bits_per_byte() * 50 + both.files.at("two").bits_per_byte() * 16, 1e-6);
}

TEST(Language, ATextBeginsAfterWhatTheTokenizerPutsBeforeIt) {
  const TemporaryFolder folder;
  ::setenv("FATHOM_CACHE", folder.path().c_str(), 1);
  write_file_atomically(folder / "text.txt", "some text");
  const auto first = [&](const Tokenizer& tokenizer) {
    return open_texts({folder / "text.txt"}, tokenizer, kWindow).at("text")->load(0, 0).token_rows[0][0];
  };
  EXPECT_EQ(first(byte_tokenizer()), 256) << "end-of-text";
  Json json = parse_json(byte_tokenizer().to_json(), "bytes");
  json["post_processor"] =
      parse_json(R"({"type":"BertProcessing","sep":["Z",90],"cls":["A",65]})", "post-processor");
  const Tokenizer tokenizer = Tokenizer::from_json(json.dump(), "bytes");
  EXPECT_EQ(tokenizer.start_of_text(), 65);
  EXPECT_EQ(first(tokenizer), 65);
  ::unsetenv("FATHOM_CACHE");
}

TEST(Language, FullWindowsHaveNoLengths) {
  const auto lengths = [](const std::vector<int64_t>& length) {
    return padded_lengths(at::tensor(length, at::kLong), 5);
  };
  EXPECT_FALSE(lengths({5, 5, 5}).defined());
  EXPECT_TRUE(at::equal(lengths({5, 3, 5}), at::tensor({5, 3, 5}, at::kLong)));
}

thread_local int64_t counted_products = 0;

/// Whether layers let the device count their tokens.
TEST(Language, OnAGpuFullWindowsTakeTheRowsThatTheDeviceCounts) {
  const CudaAvailability cuda = cuda_availability();
  if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
  const at::Device device = select_device("cuda:0");
  ASSERT_EQ(make_device_runtime(device)->missing_kernels(), "");
  LanguageModel model(LanguageModelConfig{.vocab_size = 257,
                                          .dim = 64,
                                          .layers = 2,
                                          .heads = 4,
                                          .mlp_dim = 96,
                                          .max_positions = kWindow,
                                          .gate = {.kind = GateKind::kCausal, .inner = 32}});
  init_parameters(*model, 3);
  model->to(device);
  const auto products_of = [&](size_t num_bytes) {
    const TemporaryFolder folder;
    counted_products = 0;
    const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(
        [](const at::RecordFunction& call) -> std::unique_ptr<at::ObserverContext> {
          if (std::string_view(call.name()) == "fathom::counted_linear") ++counted_products;
          return nullptr;
        }));
    evaluate_language(model, windows_of(folder, std::string(num_bytes, 'x')),
                      {.device = device, .compute_dtype = at::kBFloat16, .batch_size = 2, .workers = 0});
    at::removeCallback(handle);
    return counted_products;
  };
  const int64_t of_a_batch = 2 * 4;  // layers, products of each
  EXPECT_EQ(products_of(2 * kWindow), of_a_batch);
  EXPECT_EQ(products_of(3 * kWindow + 3), of_a_batch) << "the second batch is padded";
}

TEST(Language, ChunksOfLogitsChangeNothing) {
  LanguageModel model = toy_model();
  const auto hidden = at::randn({23, 32}), target = at::randint(0, 257, {23}, at::kLong);
  target[4] = -1;
  const double whole = total_nats(model, hidden, target);
  EXPECT_NEAR(total_nats(model, hidden, target, 5), whole, 1e-4);
  target[4] = 7;
  EXPECT_GT(total_nats(model, hidden, target), whole);
}

}  // namespace
}  // namespace fathom::language_test
