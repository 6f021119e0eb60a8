// What the verbs about results say of results, groups, logs and places that are wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "cli_program.h"

namespace fathom::cli_bad_results_test {
namespace {

namespace fs = std::filesystem;

class CliBadResults : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { world_ = std::make_unique<SmallWorld>(); }
  static void TearDownTestSuite() { world_.reset(); }
  static std::string at(const std::string& name) { return *world_ / name; }
  static std::vector<std::string> eval(const std::string& model, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"eval", model, "--data", at("data")};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  /// A file of that name with this content.
  std::string file(const std::string& name, const std::string& content) const {
    write_file_atomically(folder_ / name, content);
    return folder_ / name;
  }

  TemporaryFolder folder_;

 private:
  static inline std::unique_ptr<SmallWorld> world_;
};

TEST_F(CliBadResults, CompareNamesTheFileAndThePlace) {
  const std::string kept = folder_ / "kept.jsonl";
  ASSERT_EQ(run_program(eval(at("tower"), {"--per-sample", kept})).status, 0);
  const std::string whole = read_file(kept);
  const auto refused = [&](const std::string& other, const std::vector<std::string>& said) {
    SCOPED_TRACE(other);
    expect_failure(run_program({"compare", kept, "--against", other}), 1, said);
    expect_failure(run_program({"compare", other, "--against", kept}), 1, said);
  };
  refused(folder_ / "none.jsonl", {"none.jsonl: cannot open: No such file"});
  refused(folder_.path(), {": not a regular file"});
  refused(file("empty.jsonl", ""), {"empty.jsonl: no results"});
  refused(file("blank.jsonl", "\n\n"), {"blank.jsonl: no results"});
  refused(file("cut.jsonl", whole.substr(0, whole.size() - 9)), {"cut.jsonl:24: column ", "cut off?"});
  refused(file("list.jsonl", "[1]\n"), {"list.jsonl:1: expected an object, got array"});
  refused(file("keys.jsonl", R"({"measure":"t2i","sampel":0})"
                             "\n"),
          {"keys.jsonl:1: no \"sample\""});
  refused(file("binary.jsonl", "\xff\xfe\n"), {"binary.jsonl:1: byte 1: not valid UTF-8"});
  refused(file("short.jsonl", whole.substr(0, whole.find('\n') + 1)),
          {"was not asked the same as ", "short.jsonl", "kept.jsonl", "24 "});
  std::string other = whole;
  other.replace(other.find("shade 0"), 7, "shade 9");
  refused(file("other.jsonl", other),
          {"other.jsonl", "kept.jsonl", "t2i 0 is \"shade 9\"", "t2i 0 is \"shade 0\""});
  const std::string grouped = folder_ / "grouped.jsonl";
  ASSERT_EQ(run_program(eval(at("tower"), {"--per-sample", grouped, "--group", "split"})).status, 0);
  refused(grouped, {"t2i 0 is of ", "unseen=true", "split=val", "(`fathom eval --group` decides)"});
  EXPECT_EQ(run_program({"compare", kept, "--against", kept}).status, 0);
}

TEST_F(CliBadResults, OptionsThatATaskHasNoUseFor) {
  expect_failure(run_program({"eval", at("language"), "--data", at("text.txt"), "--group", "unseen"}), 2,
                 {"--group: for the tasks retrieval and answers, this one is language"});
  for (const char* task : {"zero_shot", "modality_probe"})
    expect_failure(run_program(eval(at("tower"), {"--task", task, "--group", "unseen"})), 2,
                   {"--group: for the tasks retrieval and answers, this one is ", task});
  expect_failure(run_program(eval(at("tower"), {"--group", ""})), 1,
                 {"--group : no row of ", "has this field"});
}

TEST_F(CliBadResults, AFolderWhereAFileIsToBeWritten) {
  fs::create_directories(folder_ / "taken.npy");
  expect_failure(run_program(eval(at("tower"), {"--per-sample", folder_ / "taken.npy"})), 2,
                 {"--per-sample: ", "taken.npy: is a folder, not a file"});
  expect_failure(run_program({"embed", at("tower"), "--data", at("data"), "--out", folder_ / "taken.npy"}), 2,
                 {"--out: ", "taken.npy: is a folder, not a file"});
  expect_failure(run_program({"report", at("tower"), "--data", at("data"), "--html", folder_.path()}), 2,
                 {"--html: ", "is a folder, not a file"});
}

TEST_F(CliBadResults, DataWithNothingInIt) {
  fs::create_directories(folder_ / "bare");
  const std::string empty = file("empty.jsonl", ""), broken = file("broken.jsonl", "{\"image\":\n");
  const auto refused = [&](const std::string& data, const std::vector<std::string>& said) {
    SCOPED_TRACE(data);
    expect_failure(run_program({"eval", at("tower"), "--data", data}), 1, said);
    expect_failure(run_program({"report", at("tower"), "--data", data, "--html", folder_ / "r.html"}), 1,
                   said);
    expect_failure(run_program({"embed", at("tower"), "--data", data, "--out", folder_ / "e.npy"}), 1, said);
  };
  refused(folder_ / "nowhere", {"nowhere: no such file or folder"});
  refused(folder_ / "bare", {"bare: no manifest", "no images"});
  refused(empty, {"empty.jsonl: no usable rows"});
  refused(broken, {"broken.jsonl:1: column ", "not valid JSON"});
  EXPECT_FALSE(fs::exists(folder_ / "r.html"));
  EXPECT_FALSE(fs::exists(folder_ / "e.npy"));
}

TEST_F(CliBadResults, ReportOfARunWhoseFilesAreBroken) {
  fs::create_directories(folder_ / "run");
  fs::copy(at("tower"), folder_ / "run/model", fs::copy_options::recursive);
  const auto report = [&] { return run_program({"report", folder_ / "run", "--data", at("data")}); };
  const auto refused = [&](const std::string& log, const std::vector<std::string>& said) {
    file("run/log.jsonl", log);
    expect_failure(report(), 1, said);
  };
  refused("{\"step\":1,\n", {"run/log.jsonl:1: column "});
  refused("[3]\n", {"run/log.jsonl:1: expected an object with a number as its \"step\""});
  refused("{\"loss\":3}\n", {"run/log.jsonl:1: expected an object with a number as its \"step\""});
  file("run/log.jsonl", "");
  EXPECT_EQ(report().status, 0);
  const std::string record = folder_ / "run/model/fathom.json";
  const Json whole = read_json_file(record);
  const auto recorded = [&](const char* key, const Json& value) {
    Json changed = whole;
    changed["record"][key] = value;
    write_json_file(record, changed);
  };
  recorded("recipe", Json::Object{{"data", Json::Object{{"train", Json::object()}, {"train_files", 3}}}});
  EXPECT_EQ(report().status, 0);
  recorded("rerank", "all");
  expect_failure(report(), 1, {"model/fathom.json: record.rerank: expected an integer, got string"});
  recorded("evaluation_data", Json::Array{3});
  expect_failure(run_program({"report", folder_ / "run"}), 1,
                 {"model/fathom.json: record.evaluation_data: expected strings, got integer"});
  fs::remove_all(folder_ / "run/model");
  expect_failure(report(), 1, {"run: this run has not written a model yet"});
}

TEST_F(CliBadResults, EmbedSaysWhatItCannotGive) {
  const auto refused = [&](const std::vector<std::string>& more, int status,
                           const std::vector<std::string>& said) {
    std::vector<std::string> words = {"embed", at("tower"), "--data", at("data")};
    words.insert(words.end(), more.begin(), more.end());
    expect_failure(run_program(words), status, said);
  };
  refused({"--out", folder_ / "x.txt"}, 2, {"x.txt: the name must end in .safetensors or .npy"});
  refused({"--out", folder_ / "x.npy", "--what", "audio"}, 1, {"tower: the model has no tower for sounds"});
  refused({"--out", folder_ / "x.npy", "--what", "smell"}, 2,
          {"--what: smell not in {image,text,audio,all}"});
  expect_failure(run_program({"embed", at("language"), "--data", at("data"), "--out", folder_ / "x.npy"}), 1,
                 {"language: embed needs a model of kind dual_tower, this one is language"});
  expect_failure(run_program({"embed", at("tower"), "--data", file("t.jsonl", "{\"text\":\"a\"}\n"), "--out",
                              folder_ / "x.npy"}),
                 1, {"t.jsonl:1: no image"});
}

}  // namespace
}  // namespace fathom::cli_bad_results_test
