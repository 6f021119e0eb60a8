#include "train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "full_disk.h"
#include "killed_at_every_call.h"
#include "temporary_folder.h"

namespace fathom::checkpoint_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

TrainingState make_state(int64_t step, int64_t size = 3) {
  TrainingState state{.step = step};
  state.tensors["model"]["w"] = torch::arange(size).to(at::kFloat) + step;
  state.tensors["optimizer"]["step"] = torch::tensor(static_cast<float>(step));
  state.values["note"] = "step " + std::to_string(step);
  return state;
}

std::string message_of(const std::function<void()>& work, ErrorKind kind) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "accepted";
}

TEST(Checkpoint, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  save_checkpoint(folder.path(), make_state(7));
  const TrainingState state = *load_latest_checkpoint(folder.path());
  EXPECT_EQ(state.step, 7);
  EXPECT_TRUE(at::equal(state.tensors.at("model").at("w"), torch::arange(3).to(at::kFloat) + 7));
  EXPECT_EQ(state.tensors.at("optimizer").at("step").item<float>(), 7);
  EXPECT_EQ(state.values.at("note").as_string(), "step 7");
}

TEST(Checkpoint, TheManifestNamesEverySlice) {
  const TemporaryFolder folder;
  save_checkpoint(folder.path(), make_state(7));
  const Json manifest = read_json_file(checkpoint_path(folder.path(), 7) + "/manifest.json");
  const Json& tensor = manifest.at("tensors").at("model/w");
  EXPECT_EQ(tensor.at("dtype").as_string(), "F32");
  EXPECT_EQ(tensor.at("slices").as_array()[0].at("file").as_string(), "model.safetensors");
  EXPECT_EQ(tensor.at("slices").as_array()[0].dump(),
            R"({"file":"model.safetensors","start":[0],"shape":[3]})");
}

TEST(Checkpoint, KeepsTheNewestAndSweepsUp) {
  const TemporaryFolder folder;
  for (const int64_t step : {1, 2, 3, 10}) save_checkpoint(folder.path(), make_state(step));
  fs::create_directory(folder / "step-00000011.tmp");
  prune_checkpoints(folder.path(), 2);
  EXPECT_THAT(checkpoint_steps(folder.path()), ElementsAre(3, 10));
  EXPECT_FALSE(fs::exists(folder / "step-00000011.tmp"));
  prune_checkpoints(folder.path(), 0);
  EXPECT_THAT(checkpoint_steps(folder.path()), ElementsAre(3, 10));
}

TEST(Checkpoint, ADamagedStateIsNamedAndTheOneBeforeTaken) {
  const TemporaryFolder folder;
  save_checkpoint(folder.path(), make_state(1));
  save_checkpoint(folder.path(), make_state(2));
  const std::string file = checkpoint_path(folder.path(), 2) + "/model.safetensors";
  std::string bytes = read_file(file);
  bytes.back() ^= 1;
  std::ofstream(file, std::ios::binary) << bytes;
  EXPECT_THAT(message_of([&] { load_checkpoint(checkpoint_path(folder.path(), 2)); }, ErrorKind::kCheckpoint),
              HasSubstr("model.safetensors: does not match its checksum"));
  EXPECT_EQ(load_latest_checkpoint(folder.path())->step, 1);
  fs::remove(checkpoint_path(folder.path(), 1) + "/manifest.json");
  EXPECT_THAT(message_of([&] { load_latest_checkpoint(folder.path()); }, ErrorKind::kCheckpoint),
              HasSubstr("cannot be resumed from"));
}

TEST(Checkpoint, NoStateIsNoError) {
  const TemporaryFolder folder;
  EXPECT_FALSE(load_latest_checkpoint(folder / "absent").has_value());
}

/// Whatever moment a save is killed at, the folder holds the former state or the new one, whole, and the next
/// save succeeds.
TEST(Checkpoint, ASaveKilledAtAnySystemCallLeavesAWholeState) {
  const TemporaryFolder folder(parent_in_memory());
  const std::string states = folder / "checkpoints";
  const TrainingState next = make_state(2);
  int former = 0, newer = 0;
  const auto calls = kill_at_every_call(
      [&] {
        fs::remove_all(states);
        save_checkpoint(states, make_state(1));
      },
      [&] {
        save_checkpoint(states, next);
        prune_checkpoints(states, 1);
      },
      [&] {
        const TrainingState kept = load_checkpoint(checkpoint_path(states, checkpoint_steps(states).back()));
        EXPECT_EQ(load_latest_checkpoint(states)->step, kept.step);
        ++(kept.step == 1 ? former : newer);
        EXPECT_EQ(kept.values.at("note").as_string(), "step " + std::to_string(kept.step));
        EXPECT_TRUE(at::equal(kept.tensors.at("model").at("w"), make_state(kept.step).tensors["model"]["w"]));
        save_checkpoint(states, next);
        save_checkpoint(states, make_state(3));
        prune_checkpoints(states, 1);
        EXPECT_THAT(checkpoint_steps(states), ElementsAre(3));
        EXPECT_EQ(std::distance(fs::directory_iterator(states), fs::directory_iterator()), 1);
      });
  if (!calls) GTEST_SKIP() << "processes may not be traced here";
  EXPECT_EQ(former + newer, *calls + 1);
  EXPECT_GT(former, 15);
  EXPECT_GT(newer, 5);
}

TEST(Checkpoint, AFullDiskLeavesTheFormerState) {
  const TemporaryFolder folder;
  save_checkpoint(folder.path(), make_state(1));
  const std::string message = [&] {
    const FullDisk full(4096);
    return message_of([&] { save_checkpoint(folder.path(), make_state(2, 100'000)); }, ErrorKind::kData);
  }();
  EXPECT_THAT(message, HasSubstr("step-00000002.tmp/model.safetensors: cannot write: "));
  EXPECT_THAT(checkpoint_steps(folder.path()), ElementsAre(1));
  EXPECT_FALSE(fs::exists(folder / "step-00000002.tmp"));
  EXPECT_EQ(load_latest_checkpoint(folder.path())->step, 1);
}

}  // namespace
}  // namespace fathom::checkpoint_test
