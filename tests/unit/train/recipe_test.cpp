#include "train/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "base/error.h"
#include "temporary_folder.h"
#include "train/gate_settings.h"

namespace fathom::recipe_test {
namespace {

using ::testing::HasSubstr;

/// A folder with files that recipes may name.
class Recipe : public ::testing::Test {
 protected:
  Recipe() { std::ofstream(folder_ / "data.jsonl") << "{}\n"; }

  std::string contrastive(const std::string& rest = "") const {
    return "task = \"contrastive\"\n[data.train]\npath = \"" + (folder_ / "data.jsonl") +
           "\"\n[training]\nepochs = 1\nbatch_size = 8\n" + rest;
  }
  RecipeConfig read(const std::string& text) const {
    return read_config<RecipeConfig>(parse_toml(text, "recipe.toml"));
  }
  std::string error_of(const std::string& text) const {
    try {
      read(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConfig);
      return error.what();
    }
    return "accepted";
  }

  TemporaryFolder folder_;
};

TEST_F(Recipe, FillsInWhatFollowsFromOtherKeys) {
  const RecipeConfig recipe =
      resolve(read(contrastive("[model.vision]\nimage_size = 96\n[data.text]\n"
                               "mask_probability = 0.1\n")));
  EXPECT_EQ(recipe.data.inputs.image.size, 96);
  EXPECT_EQ(recipe.data.val.path, recipe.data.train.path);
  EXPECT_EQ(recipe.data.val.split, "val");
  EXPECT_THAT(recipe.tokenizer.train.special_tokens, ::testing::Contains("<|mask|>"));
}

TEST_F(Recipe, OneFileIsReadInOneWay) {
  RecipeConfig recipe = read(contrastive());
  DatasetConfig& train = recipe.data.train;
  train.format = DataFormat::kVqa;
  train.columns = {"fold=split"};
  train.images = "pictures";
  train.annotations = "answers.json";
  train.image_name = "#.png";
  train.split = "1,2";
  train.limit = 3;
  recipe.data.val.split = "3";
  const DatasetConfig val = resolve(recipe).data.val;
  EXPECT_EQ(val.format, DataFormat::kVqa);
  EXPECT_EQ(val.columns, train.columns);
  EXPECT_EQ(val.images, "pictures");
  EXPECT_EQ(val.annotations, "answers.json");
  EXPECT_EQ(val.image_name, "#.png");
  EXPECT_EQ(val.split, "3");
  EXPECT_EQ(val.limit, 0);
  EXPECT_EQ(val.table, "data.val");
  recipe.data.val.path = "other.json";
  EXPECT_EQ(resolve(recipe).data.val.annotations, "") << "another file has its own";
}

TEST_F(Recipe, ReadsBackWhatItRecords) {
  const RecipeConfig recipe = resolve(read(contrastive("[[optimizer.rules]]\npattern = \"vision.*\"\n")));
  const std::string record = json_to_toml(config_to_json(recipe));
  EXPECT_EQ(config_to_json(read(record)), config_to_json(recipe));
}

TEST_F(Recipe, NamesUnknownKeysAndWrongTypes) {
  EXPECT_THAT(
      error_of(contrastive("[optimizer]\nlearning_rat = 1\n")),
      HasSubstr("recipe.toml:8: optimizer.learning_rat: unknown key; did you mean \"learning_rate\"?"));
  EXPECT_THAT(error_of(contrastive("[optimizer]\nlearning_rate = \"fast\"\n")),
              HasSubstr("expected a number"));
  EXPECT_THAT(error_of("task = \"contrast\"\n"), HasSubstr("expected one of \"contrastive\", \"language\""));
  EXPECT_THAT(error_of(contrastive("[model]\nlayers = 3\n")), HasSubstr("model.layers: unknown key"));
}

TEST_F(Recipe, HidesNoSpansLongerThanAClip) {
  const auto masked = [&](int64_t frames) {
    return "task = \"masked_audio\"\n[data.train]\npath = \"" + (folder_ / "data.jsonl") +
           "\"\n[data.audio]\nmax_seconds = 1.0\n[training]\nepochs = 1\nbatch_size = 8\n" +
           "[masked_audio]\nmask_frames = " + std::to_string(frames) + "\n";
  };
  EXPECT_EQ(error_of(masked(100)), "accepted");
  EXPECT_THAT(error_of(masked(101)), HasSubstr("masked_audio.mask_frames: 101 is more than the 100 frames"));
}

TEST_F(Recipe, TargetsInSharesAreOfPicturesAndTextsByInfoNce) {
  const auto with = [&](const std::string& keys, const std::string& rest = "") {
    return error_of(contrastive("[contrastive]\n" + keys + rest));
  };
  EXPECT_EQ(with("mixup = 1\ncutmix_share = 0.5\nmix_share = 0.5\nsoft_targets = 0.2\n"), "accepted");
  EXPECT_THAT(with("cutmix_share = 0.5\n"), HasSubstr("contrastive.cutmix_share: needs contrastive.mixup"));
  EXPECT_THAT(with("mix_share = 0.5\n"), HasSubstr("contrastive.mix_share: needs contrastive.mixup"));
  EXPECT_THAT(with("mixup = 1\nconsistency = 0.1\n"),
              HasSubstr("contrastive.mixup: not with contrastive.consistency"));
  for (const char* key : {"mixup", "soft_targets"}) {
    const std::string on = std::string(key) + " = 0.5\n", named = std::string("contrastive.") + key;
    EXPECT_THAT(with(on + "loss = \"sigmoid\"\n", "[model]\nlogit_bias = true\n"),
                HasSubstr(named + ": needs contrastive.loss = \"infonce\""));
    EXPECT_THAT(with(on, "[model]\naudio_tower = true\n"),
                HasSubstr(named + ": for pictures and texts alone"));
    const std::string bank = "[contrastive.hard_negatives]\nrefresh = 3\n";
    EXPECT_THAT(with(on, bank + "sharpness = 2\n"),
                HasSubstr(named + ": not with contrastive.hard_negatives.sharpness"));
    EXPECT_THAT(with(on, bank + "max_similarity = 0.8\n"),
                HasSubstr(named + ": not with contrastive.hard_negatives.max_similarity"));
    EXPECT_EQ(with(on, bank + "group = 4\n"), "accepted");
  }
}

TEST_F(Recipe, NamesMissingFiles) {
  EXPECT_THAT(error_of("[training]\nepochs = 1\n"), HasSubstr("data.train.path: not given"));
  EXPECT_THAT(error_of("[data.train]\npath = \"/nowhere\"\n[training]\nepochs = 1\n"),
              HasSubstr("data.train.path: \"/nowhere\" does not exist"));
  EXPECT_THAT(error_of(contrastive("[tokenizer]\npath = \"/no.json\"\n")), HasSubstr("tokenizer.path"));
  EXPECT_THAT(error_of("task = \"language\"\n[training]\nepochs = 1\n[data]\ntrain_files = [\"/no.txt\"]\n"),
              HasSubstr("data.train_files: \"/no.txt\" does not exist"));
}

TEST_F(Recipe, ReadsClassifiersOfEachModality) {
  const auto classification = [&](const std::string& rest) {
    return "task = \"classification\"\n[data.train]\npath = \"" + (folder_ / "data.jsonl") +
           "\"\n[training]\nepochs = 1\nbatch_size = 8\n" + rest;
  };
  const RecipeConfig audio = resolve(read(classification("[model.audio]\nbands = 64\n")));
  EXPECT_EQ(audio.data.inputs.audio.bands, 64);
  EXPECT_EQ(audio.data.val.path, audio.data.train.path);
  EXPECT_EQ(config_to_json(read(json_to_toml(config_to_json(audio)))), config_to_json(audio));
  const RecipeConfig image =
      resolve(read(classification("[model]\nencoder = \"image\"\n[model.vision]\nimage_size = 96\n")));
  EXPECT_EQ(image.data.inputs.image.size, 96);
  EXPECT_THAT(error_of(classification("[model]\nencoder = \"image\"\n[model.audio]\nbands = 64\n")),
              HasSubstr("model.audio: unknown key"));
  EXPECT_THAT(
      error_of(classification("[model.audio]\nmax_frames = 100\n")),
      HasSubstr("data.audio.max_seconds: 30 are 3000 frames, more than model.audio.max_frames = 100"));
  EXPECT_THAT(error_of(classification("[data.audio.augment]\nband_masks = 1\nband_mask_bands = 81\n")),
              HasSubstr("data.audio.augment.band_mask_bands: 81 are more than model.audio.bands = 80"));
  EXPECT_THAT(error_of(classification("[data.audio.augment]\ntime_masks = 1\ntime_mask_frames = 3001\n")),
              HasSubstr("data.audio.augment.time_mask_frames: 3001 are more than the 3000 frames"));
  EXPECT_THAT(error_of(classification("[data.val]\ncolumns = [\"a\"]\n")),
              HasSubstr("data.val: columns: \"a\" is not"));
  EXPECT_THAT(error_of(classification("[model]\nencoder = \"text\"\n[data.text]\nmax_tokens = 129\n")),
              HasSubstr("data.text.max_tokens: 129 is more than model.text.max_positions = 128"));
}

TEST_F(Recipe, RefusesImpossibleShapes) {
  EXPECT_THAT(error_of(contrastive("[model.vision]\nheads = [5, 6, 12, 24]\n")),
              HasSubstr("5 heads do not divide"));
  EXPECT_THAT(error_of(contrastive("[data.text]\nmax_tokens = 65\n")),
              HasSubstr("data.text.max_tokens: 65 is more than model.text.max_positions = 64"));
  EXPECT_THAT(error_of(contrastive("[data.image]\nsize = 64\n")), HasSubstr("data.image.size"));
  EXPECT_THAT(error_of(contrastive("[contrastive]\nloss = \"sigmoid\"\n")), HasSubstr("model.logit_bias"));
  EXPECT_THAT(error_of(contrastive("[model.vision]\nimage_size = 32\n[contrastive]\nlocalization = 1\n")),
              HasSubstr("contrastive.localization: of pictures of model.vision.image_size = 32 one region"));
  EXPECT_THAT(error_of("[training]\nbatch_size = 4\n"), HasSubstr("one of epochs and max_steps"));
  EXPECT_THAT(error_of(contrastive("micro_batch_size = 9\n")), HasSubstr("is larger than batch_size (8)"));
  EXPECT_THROW(check_ranks(read(contrastive()), 3), Error);
  check_ranks(read(contrastive()), 4);
}

TEST_F(Recipe, QuestionsSharePicturesWhereThereAreQuestions) {
  const std::string pairing = "[data.pairing]\nquestions_per_image = ";
  EXPECT_THAT(error_of(contrastive(pairing + "2\n")),
              HasSubstr("data.pairing.questions_per_image: for answers"));
  EXPECT_EQ(read(contrastive(pairing + "1\n")).data.pairing.questions_per_image, 1);
  for (const char* number : {"0", "-1", "65"})
    EXPECT_THAT(error_of(contrastive(pairing + number + "\n")),
                HasSubstr("data.pairing.questions_per_image"));
}

TEST_F(Recipe, AdaptersAloneNeedTheModelTheyBelongTo) {
  EXPECT_THAT(error_of(contrastive("[lora]\nrank = 4\nsave = \"adapter\"\n")),
              HasSubstr("lora.save: adapters alone need init_from"));
  EXPECT_THAT(error_of(contrastive("[lora]\nrank = 4\nsave = \"adapter\"\nalso_train = [\"log_scale\"]\n")),
              HasSubstr("lora: also_train: an adapter folder has no place"));
  EXPECT_EQ(read(contrastive("[lora]\nrank = 4\n")).lora.rank, 4);
}

TEST_F(Recipe, TakesAWholeModelOrParts) {
  const std::string init = "[[init]]\nfrom = \"" + folder_.path() + "\"\nas = \"vision.*\"\n";
  EXPECT_EQ(read(contrastive(init)).init.at(0).as, "vision.*");
  EXPECT_THAT(error_of("init_from = \"" + folder_.path() + "\"\n" + contrastive(init)),
              HasSubstr("give one of them"));
  EXPECT_THAT(error_of(contrastive("[[init]]\nfrom = \"gone\"\n")),
              HasSubstr("init.from: \"gone\" does not exist"));
}

TEST_F(Recipe, MixesDataSets) {
  const std::string path = folder_ / "data.jsonl";
  const std::string rest = "[training]\nepochs = 1\nbatch_size = 8\n";
  const std::string one = "[[data.mix]]\nweight = 2\ndata = {path = \"" + path + "\"}\n";
  const std::string contrastive_mix = "task = \"contrastive\"\n" + one + one + rest;
  EXPECT_THAT(error_of(contrastive_mix), HasSubstr("data.val.path: not given, which data.mix needs"));
  const std::string val = "[data.val]\npath = \"" + path + "\"\n";
  const RecipeConfig recipe = resolve(read(contrastive_mix + val));
  EXPECT_EQ(recipe.data.training_sets().size(), 2u);
  EXPECT_EQ(recipe.data.mix[1].data.split, "train");
  EXPECT_EQ(config_to_json(read(json_to_toml(config_to_json(recipe)))), config_to_json(recipe));
  EXPECT_THAT(error_of(contrastive_mix + val + "[data.train]\npath = \"" + path + "\"\n"),
              HasSubstr("data.train.path and data.mix: give one of them"));

  const std::string texts = "[[data.mix]]\nfiles = [\"" + path + "\"]\n";
  const std::string chats = "[[data.mix]]\nchat_files = [\"" + path + "\"]\n";
  const std::string language = "task = \"language\"\n" + rest;
  EXPECT_THAT(error_of(language), HasSubstr("data.train_files: not given"));
  EXPECT_THAT(error_of(language + texts + chats),
              HasSubstr("data.mixing.unit: texts and conversations need batches"));
  const RecipeConfig mixed = resolve(read(language + texts + chats + "[data.mixing]\nunit = \"batch\"\n"));
  EXPECT_EQ(mixed.data.training_chats().size(), 1u);
  EXPECT_THAT(mixed.tokenizer.train.special_tokens, ::testing::Contains("<|im_start|>"));
  EXPECT_THAT(error_of(language + one), HasSubstr("needs either files or chat_files"));
  EXPECT_THAT(error_of(language + texts + "[data]\ntrain_files = [\"" + path + "\"]\n"),
              HasSubstr("data.mix takes the place of"));
}

TEST_F(Recipe, MixesRowsOfEveryTaskThatLearnsFromThem) {
  const std::string path = folder_ / "data.jsonl";
  const std::string one = "[[data.mix]]\ndata = {path = \"" + path + "\"}\n",
                    texts = "[[data.mix]]\nfiles = [\"" + path + "\"]\n",
                    val = "[data.val]\npath = \"" + path + "\"\n",
                    rest = "[training]\nepochs = 1\nbatch_size = 8\n[data.audio]\nmax_seconds = 10\n";
  for (const char* task : {"answers", "masked_image", "masked_audio", "classification"}) {
    SCOPED_TRACE(task);
    const std::string recipe = std::string("task = \"") + task + "\"\n" + rest + one;
    EXPECT_THAT(error_of(recipe + one), HasSubstr("data.val.path: not given, which data.mix needs"));
    EXPECT_EQ(resolve(read(recipe + one + val)).data.training_sets().size(), 2u);
    EXPECT_THAT(error_of(recipe + texts + val),
                HasSubstr("data.mix: files are for language and masked_token"));
    EXPECT_THAT(error_of(recipe + "[[data.mix]]\n" + val), HasSubstr("data.mix.data.path: not given"));
    EXPECT_THAT(error_of(recipe + val + "[data.train]\npath = \"" + path + "\"\n"),
                HasSubstr("data.train.path and data.mix: give one of them"));
  }
}

TEST_F(Recipe, MixesTextsAndSentencesToMask) {
  const std::string path = folder_ / "data.jsonl";
  const std::string one = "[[data.mix]]\ndata = {path = \"" + path + "\"}\n",
                    texts = "[[data.mix]]\nfiles = [\"" + path + "\"]\n",
                    val = "[data.val]\npath = \"" + path + "\"\n",
                    val_files = "[data]\nval_files = [\"" + path + "\"]\n";
  const std::string masked =
      "task = \"masked_token\"\n[training]\nepochs = 1\nbatch_size = 8\n[data.text]\nmax_tokens = 20\n"
      "[model]\nattention = \"bidirectional\"\nmax_positions = 32\n";
  const RecipeConfig sentences = read(masked + one + one + val);
  EXPECT_TRUE(sentences.learns_sentences());
  EXPECT_TRUE(sentences.evaluates_sentences());
  EXPECT_EQ(sentences.masked_row_tokens(), 20);
  const RecipeConfig both = resolve(read(masked + one + texts + val));
  EXPECT_TRUE(both.learns_sentences());
  EXPECT_EQ(both.masked_row_tokens(), 32);
  EXPECT_EQ(config_to_json(read(json_to_toml(config_to_json(both)))), config_to_json(both));
  const RecipeConfig windows = resolve(read(masked + texts + texts));
  EXPECT_FALSE(windows.learns_sentences());
  EXPECT_FALSE(windows.evaluates_sentences()) << "there is nothing to evaluate on";
  EXPECT_FALSE(read(masked + one + texts + val_files).evaluates_sentences());

  EXPECT_THAT(error_of(masked + one + texts),
              HasSubstr("data.val.path: not given (nor data.val_files), which data.mix needs"));
  EXPECT_THAT(error_of(masked + one + val + val_files),
              HasSubstr("data.val_files and data.val.path: give one of them"));
  EXPECT_THAT(error_of(masked + "[[data.mix]]\nchat_files = [\"" + path + "\"]\n"),
              HasSubstr("data.mix: a masked_token recipe needs either files or data in each"));
  EXPECT_THAT(error_of(masked + one + val + "[data.train]\npath = \"" + path + "\"\n"),
              HasSubstr("data.mix takes the place of data.train_files and data.train.path"));
  EXPECT_THAT(error_of(masked + "[[data.mix]]\nfiles = [\"/no.txt\"]\n"),
              HasSubstr("data.train_files: \"/no.txt\" does not exist"));
}

TEST_F(Recipe, DataMayLieInShardsThatBracesName) {
  for (const char* name : {"s0.tar", "s1.tar"}) std::ofstream(folder_ / name) << "";
  const auto train = [&](const std::string& name) {
    return "[data.train]\npath = \"" + (folder_ / name) + "\"\n[training]\nepochs = 1\nbatch_size = 8\n";
  };
  EXPECT_EQ(error_of(train("s{0..1}.tar")), "accepted");
  EXPECT_THAT(error_of(train("s{0..2}.tar")),
              HasSubstr("data.train.path: \"" + (folder_ / "s2.tar") + "\" does not exist"));
  EXPECT_THAT(error_of(train("s{0..1.tar")), HasSubstr("a brace is not closed"));
}

/// One of recipes/, with these settings.
RecipeConfig shipped_recipe(const std::string& name, const std::vector<const char*>& settings) {
  ConfigTree tree = read_toml_file(std::string(FATHOM_GOLDENS "/../../recipes/") + name + ".toml");
  for (const char* setting : settings) apply_override(tree, setting);
  return read_config<RecipeConfig>(tree);
}

/// What listening and asking begin with fits into them.
TEST(DemoRecipes, HaveTheEncodersOfTheDemo) {
  const auto recipe = [](const std::string& name) {
    return shipped_recipe(name, {"data.train.path=.", "init=[]", "tokenizer.path="});
  };
  const RecipeConfig demo = recipe("demo"), listen = recipe("demo-listen"), ask = recipe("demo-ask");
  const auto json = [](const auto& config) { return config_to_json(config); };
  EXPECT_EQ(json(listen.dual_tower.vision), json(demo.dual_tower.vision));
  EXPECT_EQ(json(listen.dual_tower.text), json(demo.dual_tower.text));
  EXPECT_EQ(listen.dual_tower.embed_dim, demo.dual_tower.embed_dim);
  EXPECT_EQ(json(ask.fusion.vision), json(demo.dual_tower.vision));
}

/// `gated` differs from `dense` in its gates alone, by which a forward pass does this share of its work.
double share_of_work(RecipeConfig gated, const RecipeConfig& dense) {
  EXPECT_EQ(idle_gate_settings(gated), std::vector<std::string>{});
  const auto flops = [](const RecipeConfig& recipe) {
    return static_cast<double>(recipe.task == TaskKind::kLanguage
                                   ? forward_flops(recipe.language, 1, recipe.language.max_positions)
                                   : forward_flops(recipe.dual_tower, 1, 32));
  };
  const double share = flops(gated) / flops(dense);
  gated.gating = {};
  gated.language.gate = gated.dual_tower.text.gate = gated.dual_tower.vision.gate = {};
  EXPECT_EQ(config_to_json(gated), config_to_json(dense));
  return share;
}

TEST(GatedRecipes, AreTheirDenseOnesForHalfOfTheWork) {
  const auto texts = [](const char* name) {
    return shipped_recipe(name, {"data.train_files=[\".\"]", "data.val_files=[\".\"]"});
  };
  const auto pictures = [](const char* name) {  // with Swin as published: convolutions are not gated
    return shipped_recipe(name, {"data.train.path=.", "model.vision.local_mixing=0",
                                 "model.vision.mlp_mixing=0", "model.vision.convolution_stem=false"});
  };
  for (const double share : {share_of_work(texts("text-lm-gated"), texts("text-lm")),
                             share_of_work(pictures("flickr8k-gated"), pictures("flickr8k"))}) {
    EXPECT_GT(share, 0.5);
    EXPECT_LT(share, 0.65);
  }
}

class AnswersRecipe : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, AnswersRecipe,
                         ::testing::Values("demo-ask", "easy-vqa", "scenes-vqa", "daquar"));

TEST_P(AnswersRecipe, ProgressiveFusionHasAtMost12PercentMoreParametersThanPooledConcatenation) {
  RecipeConfig recipe = shipped_recipe(GetParam(), {"data.train.path=.", "init=[]"});
  EXPECT_TRUE(recipe.fusion.weighs());
  recipe.fusion.text.vocab_size = recipe.tokenizer.train.vocab_size;
  recipe.fusion.answers = {"no", "yes"};
  const auto progressive = static_cast<double>(parameter_count(recipe.fusion));
  recipe.fusion.fusion = FusionKind::kConcatPooled;
  EXPECT_LE(progressive, 1.12 * static_cast<double>(parameter_count(recipe.fusion)));
}

}  // namespace
}  // namespace fathom::recipe_test
