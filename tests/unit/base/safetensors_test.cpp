#include "base/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "peak_memory.h"
#include "temporary_folder.h"

namespace fathom::safetensors_test {
namespace {

using testing::HasSubstr;

/// A file of one header text and some data bytes.
std::vector<std::byte> make_file(const std::string& header, size_t data_bytes) {
  std::vector<std::byte> bytes(8 + header.size() + data_bytes);
  const uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

std::string error_of(const std::vector<std::byte>& bytes) {
  try {
    parse_safetensors(bytes, "evil.safetensors");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
    return error.what();
  }
  return "accepted";
}

TEST(Safetensors, ReadsWhatItWrites) {
  const TemporaryFolder folder;
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  const std::vector<int64_t> ids = {-1, 7};
  const std::string path = folder / "model.safetensors";
  write_safetensors(path,
                    {{"w", DType::kF32, {2, 3}, std::as_bytes(std::span(weights))},
                     {"empty", DType::kF16, {0, 4}, {}},
                     {"ids", DType::kI64, {2}, std::as_bytes(std::span(ids))}},
                    {{"format", "pt"}});

  const SafetensorsFile file(path);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_NE(file.find("w"), nullptr);
  EXPECT_EQ(file.find("w")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(file.find("w")->bytes.data(), weights.data(), 24), 0);
  EXPECT_EQ(std::memcmp(file.find("ids")->bytes.data(), ids.data(), 16), 0);
  EXPECT_EQ(file.find("empty")->bytes.size(), 0u);
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

struct HostileCase {
  const char* name;
  const char* header;
  size_t data_bytes;
  const char* message;
};

class HostileSafetensors : public testing::TestWithParam<HostileCase> {};

TEST_P(HostileSafetensors, IsRefusedWithItsReason) {
  const HostileCase& c = GetParam();
  EXPECT_THAT(error_of(make_file(c.header, c.data_bytes)), HasSubstr(c.message));
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileSafetensors,
    testing::Values(
        HostileCase{"hole", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3,
                    "hole or overlaps"},
        HostileCase{"overlap",
                    R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                        "b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                    3, "hole or overlaps"},
        HostileCase{"trailing", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 5,
                    "3 bytes behind"},
        HostileCase{"beyond", R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", 5, "do not lie in"},
        HostileCase{
            "overflow",
            R"({"a":{"dtype":"F64","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,0]}})",
            0, "overflows"},
        HostileCase{"mismatch", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
                    "needs 8 bytes"},
        HostileCase{"negative", R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "negative"},
        HostileCase{"twice",
                    R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                        "a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                    2, "given twice"},
        HostileCase{"dtype", R"({"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}})", 8,
                    "unknown dtype \"C64\""},
        HostileCase{"kind", R"({"a":{"dtype":"U8","shape":"x","data_offsets":[0,1]}})", 1,
                    "expected an array"},
        HostileCase{"key", R"({"a":{"dtype":"U8","shape":[1]}})", 1, "missing key \"data_offsets\""},
        HostileCase{"json", R"({"a":)", 0, "not valid JSON"},
        HostileCase{"list", "[]", 0, "header: expected an object, got array"},
        HostileCase{"entry", R"({"a":7})", 0, "tensor \"a\": expected an object, got integer"},
        HostileCase{"note", R"({"__metadata__":{"a":[]}})", 0, "expected a string, got array"},
        HostileCase{"fraction", R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1,
                    "expected an integer, got number"},
        HostileCase{"offsets", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1,
                    "more than 2 numbers in its data_offsets"},
        HostileCase{"shapes", R"({"a":{"shape":[1],"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
                    "its shape is given twice"}),
    [](const auto& info) { return info.param.name; });

TEST(Safetensors, RefusesALyingHeaderLengthBeforeReadingIt) {
  std::vector<std::byte> bytes(16);
  const uint64_t huge = UINT64_MAX;
  std::memcpy(bytes.data(), &huge, 8);
  EXPECT_THAT(error_of(bytes), HasSubstr("at most 100000000"));
  const uint64_t beyond = 64;
  std::memcpy(bytes.data(), &beyond, 8);
  EXPECT_THAT(error_of(bytes), HasSubstr("truncated"));
  EXPECT_THAT(error_of({}), HasSubstr("too short"));
}

TEST(Safetensors, PassesOverWhatALaterFormatMaySayOfATensor) {
  const auto bytes = make_file(
      R"({"a":{"dtype":"U8","extra":{"b":[1,{"dtype":"?"}]},"shape":[2],"note":"x","data_offsets":[0,2]}})",
      2);
  const SafetensorsContent content = parse_safetensors(bytes, "later");
  ASSERT_EQ(content.tensors.size(), 1u);
  EXPECT_EQ(content.tensors[0].shape, std::vector<int64_t>{2});
}

/// What a header of `pieces` repeated to 8 MB takes beyond the file itself.
int64_t memory_for(const std::string& start, const std::function<std::string(size_t)>& piece,
                   const std::string& end) {
  constexpr size_t kBytes = 8'000'000;
  std::string header = start;
  for (size_t i = 0; header.size() < kBytes; ++i) header += piece(i);
  const std::vector<std::byte> bytes = make_file(header + end, 0);
  return peak_memory_of([&] {
    try {
      parse_safetensors(bytes, "evil");
    } catch (const Error&) {
    }
  });
}

TEST(Safetensors, AHostileHeaderTakesASmallMultipleOfItsBytes) {
  constexpr int64_t kMost = 6 * 8'000'000;
  const auto same = [](const char* text) { return [text](size_t) { return std::string(text); }; };
  const std::string tensor = R"({"a":{"dtype":"U8",)";
  const auto expect_little = [&](int64_t taken) {
    EXPECT_GE(taken, 0);
    EXPECT_LT(taken, kMost);
  };
  expect_little(memory_for(tensor + R"("x":[)", same("1,"), "1]}}"));
  expect_little(memory_for(tensor + R"("x":[)", same("[],"), "[]]}}"));
  expect_little(memory_for(tensor + R"("x":[)", same("{},"), "{}]}}"));
  expect_little(memory_for(tensor + R"("shape":[)", same("1,"), "1]}}"));
  expect_little(memory_for(tensor + R"("x":)", same("["), ""));
  expect_little(memory_for(R"({")", same("aaaaaaaaaaaaaaa"), R"(":1})"));
  expect_little(memory_for(R"({"__metadata__":{)",
                           [](size_t i) { return "\"" + std::to_string(i) + "\":\"\","; }, R"("a":""}})"));
  expect_little(memory_for(
      "{",
      [](size_t i) {
        return "\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)";
      },
      R"("__metadata__":{}})"));
}

TEST(Safetensors, RefusesEveryTruncation) {
  const auto whole = make_file(R"({"a":{"dtype":"U8","shape":[20],"data_offsets":[0,20]}})", 20);
  ASSERT_EQ(error_of(whole), "accepted");
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(error_of({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)}), "accepted") << size;
}

}  // namespace
}  // namespace fathom::safetensors_test
