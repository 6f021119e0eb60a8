// Sessions that learn from several data sets: what their steps get of each, and which classes they know.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "mixed_sets.h"
#include "tar_bytes.h"
#include "train/joint_classes.h"
#include "train/session.h"

namespace fathom::mixed_session_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

using namespace testing;

/// The sets, and sessions in this process that learn from them.
class Mixture : public MixedSets {
 protected:
  Mixture() { ::setenv("FATHOM_CACHE", (*this / "cache").c_str(), 1); }
  ~Mixture() { ::unsetenv("FATHOM_CACHE"); }

  Session open(const std::string& recipe) const {
    const auto config = read_config<RecipeConfig>(parse_toml(recipe, "recipe.toml"));
    return open_session(
        config, {.collective = *collective_, .runtime = *runtime_, .run_folder = {}, .names_only = true});
  }
  std::string error_of(const std::string& recipe) const {
    try {
      open(recipe);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

 private:
  std::unique_ptr<Collective> collective_ = make_solo_collective();
  std::unique_ptr<DeviceRuntime> runtime_ = make_device_runtime(at::kCPU);
};

/// Whether a sample is of the data set "two", by what it holds.
bool is_of_two(const Batch& batch, int64_t sample) {
  if (batch.image_BCHW.defined()) return batch.image_BCHW[sample].to(at::kFloat).mean().item<float>() > 128;
  if (batch.frames_B.defined()) return batch.frames_B[sample].item<int64_t>() > 30;
  return batch.length_B[sample].item<int64_t>() > 10;
}

class MixedTask : public ::testing::TestWithParam<MixedRecipe>, protected Mixture {};
INSTANTIATE_TEST_SUITE_P(All, MixedTask, ::testing::ValuesIn(mixed_recipes()),
                         [](const auto& info) { return info.param.name; });

TEST_P(MixedTask, AnEpochHasTheStatedShareOfEachSet) {
  const Session session = open(recipe(GetParam(), mix()));
  ASSERT_EQ(session.mix.size(), 2u);
  EXPECT_EQ(session.mix[0].data, rows_file("one"));
  EXPECT_EQ(session.mix[0].weight, 3);
  for (const MixShare& share : session.mix) EXPECT_EQ(share.samples, 8);
  EXPECT_EQ(session.mix[0].epoch_samples, 12);
  EXPECT_EQ(session.mix[1].epoch_samples, 4);
  std::set<int64_t> seen;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    int64_t of_two = 0;
    for (int64_t i = 0; i < session.loader->batches_per_epoch(); ++i) {
      const auto batch = session.loader->next();
      ASSERT_EQ(batch->size(), 4);
      for (int64_t sample = 0; sample < 4; ++sample) {
        const int64_t index = batch->index_B[sample].item<int64_t>();
        EXPECT_EQ(is_of_two(*batch, sample), index >= 8);
        of_two += is_of_two(*batch, sample);
        seen.insert(index);
      }
    }
    EXPECT_EQ(of_two, 4) << "epoch " << epoch;
  }
  EXPECT_EQ(seen.size(), 16u) << "every sample of both";
}

TEST_P(MixedTask, GoesOnInTheMiddleOfAnEpoch) {
  const Session whole = open(recipe(GetParam(), mix(), /*workers=*/0)),
                rest = open(recipe(GetParam(), mix(), /*workers=*/2));
  for (int i = 0; i < 6; ++i) whole.loader->next();
  const SamplerState state = whole.loader->state();
  EXPECT_EQ(state, (SamplerState{1, 2}));
  rest.loader->resume(state);
  for (int i = 0; i < 6; ++i) {
    auto expected = whole.loader->next(), got = rest.loader->next();
    const auto wanted = expected->tensors(), found = got->tensors();
    for (size_t k = 0; k < wanted.size(); ++k) {
      ASSERT_EQ(wanted[k]->defined(), found[k]->defined()) << k;
      EXPECT_TRUE(!wanted[k]->defined() || at::equal(*wanted[k], *found[k])) << k;
    }
  }
}

class MixedClasses : public ::testing::Test, protected Mixture {
 protected:
  /// The class ids of the samples of "one", and of "two", in the two epochs that see all of them.
  std::pair<std::set<int64_t>, std::set<int64_t>> drawn(const Session& session) const {
    std::set<int64_t> one, two;
    for (int64_t i = 0; i < 2 * session.loader->batches_per_epoch(); ++i) {
      const auto batch = session.loader->next();
      for (int64_t sample = 0; sample < batch->size(); ++sample)
        (is_of_two(*batch, sample) ? two : one).insert(batch->label_B[sample].item<int64_t>());
    }
    return {one, two};
  }
};

TEST_F(MixedClasses, AreAllThatAnySetHas) {
  for (const char* encoder : {"pictures", "sounds", "texts"}) {
    SCOPED_TRACE(encoder);
    const Session session = open(recipe(mixed_recipe(encoder), mix()));
    EXPECT_THAT(session.recipe.classifier.classes, ElementsAre("cat", "dog", "owl"));
    const auto [one, two] = drawn(session);
    EXPECT_THAT(one, ElementsAre(0, 1));
    EXPECT_THAT(two, ElementsAre(1, 2));
  }
  const Session session = open(recipe(mixed_recipe("answers"), mix()));
  EXPECT_THAT(session.recipe.fusion.answers, ElementsAre("no", "red", "yes"));
  const auto [one, two] = drawn(session);
  EXPECT_THAT(one, ElementsAre(0, 2));
  EXPECT_THAT(two, ElementsAre(0, 1));
}

TEST_F(MixedClasses, ThatAreGivenMustHoldEveryLabel) {
  const std::string pictures = recipe(mixed_recipe("pictures"), mix());
  const auto with = [&](const std::string& classes) {
    std::string changed = pictures;
    return changed.replace(changed.find("encoder"), 0, "classes = " + classes + "\n");
  };
  EXPECT_EQ(error_of(with("[\"owl\", \"dog\", \"cat\"]")), "accepted");
  EXPECT_THAT(error_of(with("[\"dog\", \"cat\"]")),
              HasSubstr("two/rows.jsonl:2: label \"owl\" is not among the 2 classes"));
}

TEST_F(MixedClasses, ThatAreNumbersInOneSetAndNamesInAnotherAreRefused) {
  write("digits", {200, 3200, "one two three", {"0", "1"}, {"0", "1"}});
  const std::string numbered = mix(rows("one"), rows("digits"));
  EXPECT_THAT(error_of(recipe(mixed_recipe("pictures"), numbered)),
              HasSubstr("digits/rows.jsonl numbers its classes (\"0\") and"));
  EXPECT_EQ(error_of(recipe(mixed_recipe("answers"), numbered)), "accepted") << "an answer may be a number";
  EXPECT_NO_THROW(check_class_names({{"a", {"0", "1"}}, {"b", {"1", "2"}}, {"c", {}}}));
  EXPECT_NO_THROW(check_class_names({{"a", {"0", "1"}}, {"b", {"1", "none"}}}));
}

TEST_F(MixedClasses, ThatAreHardlyMeantAsTwoAreReported) {
  EXPECT_THAT(near_class_names({"07", "7", "8", "Cat", "cat", "dog"}),
              ElementsAre(Pair("07", "7"), Pair("Cat", "cat")));
  write("two", {200, 3200, "one two three", {"Dog", "owl"}, {"No", "red"}});
  for (const char* task : {"pictures", "answers"}) {
    ::testing::internal::CaptureStderr();
    open(recipe(mixed_recipe(task), mix()));
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(said, HasSubstr("classes: 2 of the 4 are in " + rows_file("one")));
    EXPECT_THAT(said, HasSubstr(" are learned as two"));
  }
}

class MixedReading : public ::testing::Test, protected Mixture {};

TEST_F(MixedReading, QuestionsThatShareAPictureAreMixedByPictures) {
  std::string rows_of_one;
  for (int i = 0; i < 16; ++i)
    rows_of_one += fmt::format(R"({{"image":"{}.png","question":"which {}?","answer":"yes","split":"train"}})"
                               "\n",
                               i / 2, i % 2);
  write_file_atomically(rows_file("one"), rows_of_one);
  const Session session =
      open(recipe(mixed_recipe("answers"), mix() + "[data.pairing]\nquestions_per_image = 2\n"));
  EXPECT_EQ(session.mix[0].samples, 8);
  EXPECT_EQ(session.mix[0].epoch_samples, 12);
  EXPECT_DOUBLE_EQ(session.task->questions_per_sample(), (12 * 2 + 4 * 1) / 16.0);
  int64_t pictures = 0, questions = 0;
  for (int64_t i = 0; i < session.loader->batches_per_epoch(); ++i) {
    const auto batch = session.loader->next();
    ASSERT_EQ(batch->questions_each(), 2);
    pictures += batch->size();
    questions += batch->prompt_length_B.gt(0).sum().item<int64_t>();
  }
  EXPECT_EQ(pictures, 16);
  EXPECT_EQ(questions, 12 * 2 + 4 * 1);
}

TEST_F(MixedReading, EachSetMayBeOfAFormatOfItsOwn) {
  Json questions = Json::array(), answers = Json::array();
  for (int i = 0; i < 8; ++i) {
    questions.push_back(Json::Object{{"question_id", i}, {"image_id", i}, {"question", "which?"}});
    answers.push_back(Json::Object{{"question_id", i}, {"image_id", i}, {"multiple_choice_answer", "vqa"}});
  }
  write_file_atomically(*this / "questions.json", Json(Json::Object{{"questions", questions}}).dump());
  write_file_atomically(*this / "answers.json", Json(Json::Object{{"annotations", answers}}).dump());
  for (int shard = 0; shard < 2; ++shard) {
    std::string archive;
    for (int i = 0; i < 4; ++i) {
      const std::string name = std::to_string(4 * shard + i);
      archive += tar_file(name + ".png", picture(200)) + tar_file(name + ".cls", "shard") +
                 tar_file(name + ".json", R"({"question": "which?", "answer": "shard"})");
    }
    write_file_atomically(*this / fmt::format("s{}.tar", shard), archive + tar_end());
    std::filesystem::create_directories(*this / fmt::format("folders/{}", shard == 0 ? "left" : "right"));
  }
  for (int i = 0; i < 8; ++i)
    write_file_atomically(*this / fmt::format("folders/{}/{}.png", i % 2 == 0 ? "left" : "right", i),
                          picture(40));
  const std::string shards = "data = {path = \"" + (*this / "s{0..1}.tar") + "\", split = \"\"}";
  const std::string vqa = fmt::format(
      "data = {{path = \"{}\", annotations = \"{}\", images = \"{}\", image_name = \"#.png\", "
      "split = \"\"}}",
      *this / "questions.json", *this / "answers.json", *this / "one");
  const Session asked = open(recipe(mixed_recipe("answers"), mix(vqa, shards)));
  EXPECT_THAT(asked.recipe.fusion.answers, ElementsAre("shard", "vqa"));
  const std::string folders = "data = {path = \"" + (*this / "folders") + "\", split = \"\"}";
  std::string pictures = recipe(mixed_recipe("pictures"), mix(folders, shards));
  pictures.replace(pictures.find(rows_file("one")), rows_file("one").size(), *this / "folders");
  pictures.replace(pictures.find("split = \"train\""), 15, "split = \"\"");
  const Session sorted = open(pictures);
  EXPECT_THAT(sorted.recipe.classifier.classes, ElementsAre("left", "right", "shard"));
  for (const Session* session : {&asked, &sorted}) {
    int64_t of_shards = 0;
    for (int64_t i = 0; i < session->loader->batches_per_epoch(); ++i) {
      const auto batch = session->loader->next();
      for (int64_t sample = 0; sample < 4; ++sample) {
        EXPECT_EQ(is_of_two(*batch, sample), batch->index_B[sample].item<int64_t>() >= 8);
        of_shards += is_of_two(*batch, sample);
      }
    }
    EXPECT_EQ(of_shards, 4);
  }
}

TEST_F(MixedReading, HiddenTokensAreOfTextsAndSentences) {
  write_file_atomically(*this / "a.txt", std::string(400, 'a'));
  write_file_atomically(*this / "z.txt", std::string(400, 'z'));
  const MixedRecipe task = mixed_recipe("masked_token");
  const Session windows = open(recipe(task, mix(texts("a.txt"), texts("z.txt"))));
  EXPECT_EQ(windows.mix[0].data, *this / "a.txt");
  const Session both_kinds = open(recipe(task, mix(texts("a.txt"), rows("one"))));
  for (const Session* session : {&windows, &both_kinds}) {
    EXPECT_EQ(session->mix[0].epoch_samples, 12);
    std::map<int64_t, int64_t> rows_by_token;
    for (int64_t i = 0; i < session->loader->batches_per_epoch(); ++i) {
      const auto batch = session->loader->next();
      for (int64_t row = 0; row < 4; ++row) {
        const bool is_light = batch->index_B[row].item<int64_t>() >= session->mix[0].samples;
        const bool is_window = session == &windows || !is_light;
        EXPECT_EQ(batch->length_B[row].item<int64_t>(), is_window ? 32 : 6) << "\"red 0\" and its end mark";
        ++rows_by_token[batch->tokens_BT[row][0].item<int64_t>()];
      }
    }
    std::vector<int64_t> counts;
    for (const auto& [token, rows] : rows_by_token) counts.push_back(rows);
    EXPECT_THAT(counts, ::testing::UnorderedElementsAre(12, 4)) << "rows begin with a, and with z or r";
  }
}

TEST_F(MixedReading, ASetOfWhichNothingCanBeLearnedIsNamed) {
  write_file_atomically(rows_file("two"), "{\"image\":\"0.png\",\"split\":\"train\"}\n");
  EXPECT_THAT(error_of(recipe(mixed_recipe("masked_token"), mix())),
              HasSubstr("two/rows.jsonl: nothing to learn from, in data set 2 of data.mix"));
  EXPECT_THAT(error_of(recipe(mixed_recipe("answers"), mix())),
              HasSubstr("two/rows.jsonl:1: no question and no caption"));
}

}  // namespace
}  // namespace fathom::mixed_session_test
