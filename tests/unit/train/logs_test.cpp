#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "full_disk.h"
#include "temporary_folder.h"
#include "train/best_model.h"
#include "train/run_log.h"
#include "train/tensorboard.h"

namespace fathom::logs_test {
namespace {

using ::testing::HasSubstr;

Json line(int64_t step) {
  Json json = Json::object();
  json["step"] = step;
  return json;
}

TEST(RunLog, DropsWhatComesAfterTheResumedStepAndTornLines) {
  const TemporaryFolder folder;
  {
    RunLog log(folder / "log.jsonl", 0);
    for (int64_t step = 1; step <= 4; ++step) log.write(line(step));
  }
  std::ofstream(folder / "log.jsonl", std::ios::app) << "{\"step\":5,\"lo";
  RunLog log(folder / "log.jsonl", 3);
  log.write(line(4));
  log.sync();
  EXPECT_EQ(read_file(folder / "log.jsonl"), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4}\n");
}

TEST(RunLog, AFolderThatIsNotThereIsNamed) {
  try {
    RunLog log("/nowhere/log.jsonl", 0);
    FAIL() << "opened";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/nowhere/log.jsonl: cannot open: No such file or directory"));
  }
}

TEST(RunLog, AFullDiskIsNamedAndTheTornLineForgotten) {
  const TemporaryFolder folder;
  {
    RunLog log(folder / "log.jsonl", 0);
    log.write(line(1));
    const FullDisk full(16);
    try {
      log.write(line(2));
      FAIL() << "wrote";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      EXPECT_THAT(error.what(), HasSubstr("log.jsonl: cannot write: "));
    }
  }
  EXPECT_EQ(read_file(folder / "log.jsonl"), "{\"step\":1}\n{\"ste");
  RunLog log(folder / "log.jsonl", 2);
  log.write(line(2));
  EXPECT_EQ(read_file(folder / "log.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(TensorBoard, AFullDiskIsNamed) {
  const TemporaryFolder folder;
  EventWriter writer(folder.path(), 0);
  const FullDisk full(16);
  try {
    writer.write(1, {{"train/loss", 0.5}});
    writer.flush();
    FAIL() << "wrote";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(), HasSubstr("events.out.tfevents."));
  }
}

TEST(TensorBoard, ChecksumIsCrc32c) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);  // RFC 3720, section B.4
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
}

std::string only_event_file(const std::string& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) return entry.path();
  return "";
}

uint32_t masked(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

/// Payloads of a TFRecord file, their checksums verified.
std::vector<std::string> read_records(const std::string& path) {
  const std::string file = read_file(path);
  std::vector<std::string> records;
  for (size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    uint32_t check = 0;
    std::memcpy(&length, file.data() + at, 8);
    std::memcpy(&check, file.data() + at + 8, 4);
    EXPECT_EQ(check, masked({file.data() + at, 8}));
    records.push_back(file.substr(at + 12, length));
    std::memcpy(&check, file.data() + at + 12 + length, 4);
    EXPECT_EQ(check, masked(records.back()));
    at += 16 + length;
  }
  return records;
}

TEST(TensorBoard, RecordsHoldVersionStepTagAndValue) {
  const TemporaryFolder folder;
  {
    EventWriter writer(folder.path(), 0);
    writer.write(300, {{"train/loss", 0.5}});
    writer.flush();
  }
  const std::vector<std::string> records = read_records(only_event_file(folder.path()));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_THAT(records[0], HasSubstr("brain.Event:2"));
  const std::string value("\x0a\x0atrain/loss\x15\x00\x00\x00\x3f", 17);
  EXPECT_EQ(records[1].substr(9, 3), std::string("\x10\xac\x02"));  // step 300 as a varint
  EXPECT_THAT(records[1], HasSubstr(std::string("\x2a\x13\x0a\x11") + value));
}

TEST(TensorBoard, AResumedRunSaysWhereItBegins) {
  const TemporaryFolder folder;
  EventWriter writer(folder.path(), 5);
  const std::vector<std::string> records = read_records(only_event_file(folder.path()));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[1].substr(9), std::string("\x10\x05\x3a\x02\x08\x01"));
}

TEST(BestModel, JudgesByDirectionAndStopsAfterPatience) {
  BestModel best({.patience = 2}, "loss");
  const auto judge = [&](double value, int64_t step) { return best.judge({{"loss", {value, false}}}, step); };
  EXPECT_TRUE(judge(3.0, 1));
  EXPECT_FALSE(judge(3.5, 2));
  EXPECT_FALSE(best.should_stop());
  EXPECT_TRUE(judge(2.0, 3));
  EXPECT_FALSE(judge(2.0, 4));
  EXPECT_FALSE(judge(2.5, 5));
  EXPECT_TRUE(best.should_stop());
  BestModel again({.patience = 2}, "loss");
  again.load_state(best.state());
  EXPECT_TRUE(again.should_stop());
  EXPECT_EQ(again.step(), 3);
  EXPECT_EQ(again.value(), 2.0);
}

TEST(BestModel, HigherIsBetterWhereTheMetricSaysSo) {
  BestModel best({.metric = "recall", .patience = 1, .min_improvement = 0.5}, "loss");
  const auto judge = [&](double recall, int64_t step) {
    return best.judge({{"loss", {9, false}}, {"recall", {recall, true}}}, step);
  };
  EXPECT_EQ(best.metric(), "recall");
  EXPECT_TRUE(judge(10, 1));
  EXPECT_FALSE(judge(10.5, 2)) << "no more than min_improvement";
  EXPECT_TRUE(best.should_stop());
  EXPECT_TRUE(judge(10.75, 3));
  EXPECT_FALSE(best.should_stop());
}

TEST(BestModel, WhatIsNoNumberIsNoImprovement) {
  BestModel best({.patience = 2}, "loss");
  const auto judge = [&](double value, int64_t step) { return best.judge({{"loss", {value, false}}}, step); };
  EXPECT_FALSE(judge(std::nan(""), 1));
  EXPECT_FALSE(best.value().has_value());
  BestModel again({.patience = 2}, "loss");
  again.load_state(parse_json(best.state().dump(), "state"));
  EXPECT_FALSE(again.judge({{"loss", {std::nan(""), false}}}, 2));
  EXPECT_TRUE(again.should_stop());
  EXPECT_TRUE(judge(7, 2));
  EXPECT_FALSE(judge(std::nan(""), 3));
  EXPECT_FALSE(judge(-INFINITY, 4));
  EXPECT_EQ(best.value(), 7);
}

TEST(BestModel, AnUnknownMetricListsTheKnownOnes) {
  BestModel best({.metric = "recal"}, "loss");
  try {
    best.judge({{"loss", {1, false}}, {"recall", {1, true}}}, 1);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "evaluation.metric: the evaluation has no \"recal\"; it has loss, recall");
  }
}

}  // namespace
}  // namespace fathom::logs_test
