// JSON, files, random numbers and threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/random.h"
#include "full_disk.h"
#include "temporary_folder.h"

namespace fathom::base_test {
namespace {

using testing::HasSubstr;

TEST(Json, ParsesAndWritesBack) {
  const std::string text = R"({"a":[1,-2.5,true,null,"x\n\u00e9"],"b":{}})";
  const Json value = parse_json(text, "test");
  EXPECT_EQ(value.at("a").as_array()[0].as_int(), 1);
  EXPECT_EQ(value.at("a").as_array()[1].as_double(), -2.5);
  EXPECT_EQ(value.at("a").as_array()[4].as_string(), "x\n\xc3\xa9");
  EXPECT_EQ(parse_json(value.dump(), "again"), value);
  EXPECT_EQ(parse_json(value.dump(2), "again"), value);
  EXPECT_EQ(Json(std::nan("")).dump(), "null");
}

TEST(Json, ErrorsNamePositionAndDepthIsLimited) {
  try {
    parse_json("{\n  \"a\": [1,,2]\n}", "file.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("file.json:2:"));
  }
  EXPECT_THROW(parse_json(std::string(100000, '['), "deep"), Error);
  EXPECT_THROW(parse_json("{\"a\":1} x", "trailing"), Error);
  EXPECT_THROW(parse_json("\"\xff\"", "bytes"), Error);
  EXPECT_THROW(parse_json("1", "kind").as_string(), Error);
}

TEST(File, AtomicWriteReplacesOrLeaves) {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  write_file_atomically(path, "old");
  {
    AtomicFile abandoned(path);
    abandoned.write(std::as_bytes(std::span("new", 3)));
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
  write_file_atomically(path, "newer");
  EXPECT_EQ(read_file(path), "newer");
  EXPECT_EQ(MappedFile(path).text(), "newer");
  EXPECT_THROW(read_file(path, 2), Error);
  EXPECT_THROW(read_file(folder / "absent"), Error);
  EXPECT_THROW(read_file(folder.path()), Error);
  EXPECT_THROW(write_file_atomically(folder / "no/such/folder", "x"), Error);
}

std::string read_error(const std::string& path) {
  try {
    read_file(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    return error.what();
  }
  return "read";
}

TEST(File, PathsToOneFileAreEqual) {
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(absolute_path("a/../b.png"), here + "/b.png");
  EXPECT_EQ(absolute_path(here + "/./b.png"), here + "/b.png");
  EXPECT_EQ(absolute_path(here + "/"), here);
  EXPECT_EQ(absolute_path("/"), "/");
}

TEST(File, SaysWhyItCannotBeRead) {
  const TemporaryFolder folder;
  EXPECT_EQ(read_error(folder / "absent"), (folder / "absent") + ": cannot open: No such file or directory");
  EXPECT_EQ(read_error(folder.path()), folder.path() + ": not a regular file");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(read_error(folder / "pipe"), (folder / "pipe") + ": not a regular file") << "must not wait";
  EXPECT_THROW(MappedFile(folder / "pipe"), Error);
}

TEST(File, AFullDiskIsNamedAndTheOldContentStays) {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  write_file_atomically(path, "old");
  const FullDisk full(10);
  try {
    write_file_atomically(path, std::string(11, 'x'));
    FAIL() << "wrote";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_EQ(std::string(error.what()), path + ": cannot write: File too large");
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST(File, ChecksumIsTheSameInAnyPiecesAndSeesEveryBit) {
  std::vector<std::byte> bytes(100);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37);
  const uint64_t whole = checksum64(bytes);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    Checksum pieces;
    pieces.update(std::span(bytes).first(cut));
    pieces.update(std::span(bytes).subspan(cut));
    EXPECT_EQ(pieces.value(), whole) << cut;
  }
  for (std::byte& byte : bytes) {
    byte ^= std::byte{4};
    EXPECT_NE(checksum64(bytes), whole);
    byte ^= std::byte{4};
  }
  EXPECT_NE(checksum64(std::span(bytes).first(99)), whole);
}

TEST(Random, IsPhilox) {
  // Known answers of Random123 for Philox4x32-10.
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, 0),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, ~uint64_t{0}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Random, HasTheRightMoments) {
  Random random({1, 2, 3});
  double sum = 0, squares = 0, uniform = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double z = random.normal();
    sum += z;
    squares += z * z;
    uniform += random.uniform();
  }
  EXPECT_NEAR(sum / kDraws, 0, 0.02);
  EXPECT_NEAR(squares / kDraws, 1, 0.03);
  EXPECT_NEAR(uniform / kDraws, 0.5, 0.01);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts[static_cast<size_t>(random.below(7))];
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
}

TEST(Random, DependsOnEveryWordOfItsSeed) {
  EXPECT_NE(mix_seed({1, 2, 3}), mix_seed({1, 3, 2}));
  EXPECT_NE(mix_seed({1, 2}), mix_seed({1, 2, 0}));
  EXPECT_EQ(Random({5, 6}).next_u64(), Random({5, 6}).next_u64());
}

TEST(ParallelForEach, RunsEverythingAndCarriesExceptions) {
  std::vector<int> hits(1000);
  parallel_for_each(1000, 4, [&](int64_t i) { ++hits[static_cast<size_t>(i)]; });
  EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), 0), 1000);
  EXPECT_THROW(parallel_for_each(100, 3,
                                 [](int64_t i) {
                                   if (i == 50) throw std::runtime_error("x");
                                 }),
               std::runtime_error);
}

}  // namespace
}  // namespace fathom::base_test
