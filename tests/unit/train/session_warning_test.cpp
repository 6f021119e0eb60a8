// What a session warns of before its first step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "temporary_folder.h"
#include "train/session.h"

namespace fathom::session_warning_test {
namespace {

using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

class SessionWarnings : public ::testing::Test, protected TemporaryFolder {
 protected:
  SessionWarnings() {
    std::ofstream file(*this / "t.txt");
    for (int line = 0; line < 500; ++line) file << "one text and one more\n";
  }

  /// What opening a session of this precision on a CPU says.
  std::string said(const std::string& precision) const {
    const std::string recipe_text =
        "precision = \"" + precision + "\"\ndata.train_files = [\"" + (*this / "t.txt") + R"("]
task = "language"
tokenizer.vocab_size = 260
model = { dim = 16, layers = 1, heads = 2, mlp_dim = 32 }
training = { batch_size = 1, max_steps = 1 }
)";
    const auto recipe = read_config<RecipeConfig>(parse_toml(recipe_text, "recipe.toml"));
    CaptureStderr();
    open_session(recipe,
                 {.collective = *collective_, .runtime = *runtime_, .run_folder = {}, .names_only = true});
    return GetCapturedStderr();
  }

  std::unique_ptr<Collective> collective_ = make_solo_collective();
  std::unique_ptr<DeviceRuntime> runtime_ = make_device_runtime(at::kCPU);
};

TEST_F(SessionWarnings, OfPrecisionsThatTheProcessorHasNoInstructionsFor) {
  EXPECT_EQ(said("bf16").find("no instructions for it") == std::string::npos,
            runtime_->is_fast(at::kBFloat16));
  EXPECT_THAT(said("fp16_bf16"), HasSubstr("a reference to compare with"));
  EXPECT_EQ(said("fp32").find("precision"), std::string::npos);
}

}  // namespace
}  // namespace fathom::session_warning_test
