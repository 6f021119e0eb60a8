#include "evaluate/language.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/file.h"
#include "byte_tokenizer.h"
#include "nn/init.h"
#include "temporary_folder.h"

namespace fathom {
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

TEST(Language, BatchesChangeNothing) {
  const TemporaryFolder folder;
  const auto windows = windows_of(folder, std::string(150, 'x') + "<|endo" + std::string(77, 'y'));
  LanguageModel model = toy_model();
  const double one = evaluate_language(model, windows, {.batch_size = 1, .workers = 0}).nats;
  const double many = evaluate_language(model, windows, {.batch_size = 64, .workers = 2}).nats;
  EXPECT_NEAR(one, many, 1e-4 * one);
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
}  // namespace fathom
