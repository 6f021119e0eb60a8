// A dual tower that learns from a trained one: what it takes for a teacher, on one rank, on two and resumed.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_distillation_test {
namespace {

class TrainDistillation : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = std::make_unique<TrainingWorld>();
    train("teacher", {"model.text.dim=32", "training.max_steps=8"});
  }
  static void TearDownTestSuite() { world_.reset(); }

  static std::vector<std::string> words(const std::string& run, std::vector<std::string> settings) {
    settings.insert(settings.begin(), {"training.max_steps=12", "training.log_every=1", "precision=fp64"});
    return world_->arguments(*world_ / run, settings);
  }
  static void train(const std::string& run, const std::vector<std::string>& settings) {
    const ProgramResult result = run_program(words(run, settings));
    ASSERT_EQ(result.status, 0) << result.error;
  }
  static std::string taught_by(const std::string& folder) {
    return "contrastive.distillation.teachers=[\"" + folder + "\"]";
  }
  static std::string teacher() { return *world_ / "teacher/model"; }
  static void expect_refused(const std::vector<std::string>& settings, const std::string& said) {
    expect_failure(run_program(words("refused", settings)), 1, {said});
    EXPECT_FALSE(std::filesystem::exists(*world_ / "refused/log.jsonl")) << "nothing was trained";
  }

  static inline std::unique_ptr<TrainingWorld> world_;
};

TEST_F(TrainDistillation, ChangesWhatIsLearnedAndIsTheSameOnTwoRanks) {
  const std::vector<std::string> settings = {taught_by(teacher()), "training.micro_batch_size=2",
                                             "contrastive.distillation.temperature=2"};
  train("alone", {"training.micro_batch_size=2"});
  train("one", settings);
  const ProgramResult two = run_program(on_two_ranks(words("two", settings)));
  ASSERT_EQ(two.status, 0) << two.error;
  const std::vector<double> alone = logged_losses(*world_ / "alone"), one = logged_losses(*world_ / "one"),
                            ranks = logged_losses(*world_ / "two");
  ASSERT_EQ(one.size(), 12u);
  ASSERT_EQ(ranks.size(), 12u);
  EXPECT_GT(std::abs(one.back() - alone.back()), 1e-3);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], ranks[i], 1e-6) << i;
}

TEST_F(TrainDistillation, GoesOnToTheBit) {
  const std::vector<std::string> settings = {taught_by(teacher()), "checkpoint.every=6"};
  train("whole", settings);
  std::filesystem::copy(*world_ / "whole", *world_ / "cut", std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(newest_state(*world_ / "cut"));
  ASSERT_EQ(newest_step(*world_ / "cut"), 6);
  std::vector<std::string> rest = words("cut", settings);
  rest.emplace_back("--resume");
  const ProgramResult result = run_program(rest);
  ASSERT_EQ(result.status, 0) << result.error;
  for (const std::string& file : state_files())
    EXPECT_TRUE(read_file(newest_state(*world_ / "cut") + "/" + file) ==
                read_file(newest_state(*world_ / "whole") + "/" + file))
        << file;
}

TEST_F(TrainDistillation, GoesOnWithNoOtherTeacher) {
  const std::string replaced = *world_ / "replaced";
  std::filesystem::copy(teacher(), replaced, std::filesystem::copy_options::recursive);
  std::vector<std::string> rest =
      words("begun", {taught_by(replaced), "training.max_steps=2", "checkpoint.every=2"});
  ASSERT_EQ(run_program(rest).status, 0);
  train("other_teacher", {"seed=9", "training.max_steps=1"});
  std::filesystem::remove_all(replaced);
  std::filesystem::copy(*world_ / "other_teacher/model", replaced, std::filesystem::copy_options::recursive);
  rest.insert(rest.end(), {"--resume", "--set", "training.max_steps=3"});
  expect_failure(run_program(rest), 1, {"teacher.0 has other weights than when the run began"});
}

TEST_F(TrainDistillation, TakesNoTeacherThatSeesOtherTokensOrPictures) {
  expect_refused({taught_by("/nowhere")}, "contrastive.distillation.teachers: \"/nowhere\" does not exist");
  expect_refused({taught_by(teacher() + "/vision")},
                 teacher() + "/vision holds a swin model, not a dual tower");
  expect_refused({taught_by(teacher()), "tokenizer.vocab_size=270"}, "has another tokenizer");
  expect_refused({taught_by(teacher()), "model.vision.image_size=64"},
                 "takes pictures of 32 pixels a side, this model of 64");
  expect_refused({taught_by(teacher()), "contrastive.loss=sigmoid", "model.logit_bias=true"},
                 "contrastive.distillation.teachers: needs contrastive.loss = \"infonce\"");
  expect_refused({taught_by(teacher()), "contrastive.soft_targets=0.2"},
                 "contrastive.soft_targets: not with contrastive.distillation");
  expect_refused({taught_by(teacher()), "contrastive.distillation.share=0",
                  "contrastive.distillation.embedding_weight=0"},
                 "nothing is learned of them");
  expect_refused({"contrastive.distillation.share=0.7"}, "nothing else here has an effect without them");
}

TEST_F(TrainDistillation, IsPlannedWithoutWeights) {
  std::vector<std::string> words = this->words("planned", {taught_by(teacher())});
  words.emplace_back("--dry-run");
  const ProgramResult result = run_program(words);
  EXPECT_EQ(result.status, 0) << result.error;
}

}  // namespace
}  // namespace fathom::train_distillation_test
