#include "train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/torch.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "temporary_folder.h"

namespace fathom {
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

/// A limit on the size of files stands for the disk that is full.
TEST(Checkpoint, AFullDiskLeavesTheFormerState) {
  const TemporaryFolder folder;
  save_checkpoint(folder.path(), make_state(1));
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string message =
      message_of([&] { save_checkpoint(folder.path(), make_state(2, 100'000)); }, ErrorKind::kData);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("cannot write"));
  EXPECT_THAT(checkpoint_steps(folder.path()), ElementsAre(1));
  EXPECT_FALSE(fs::exists(folder / "step-00000002.tmp"));
  EXPECT_EQ(load_latest_checkpoint(folder.path())->step, 1);
}

}  // namespace
}  // namespace fathom
