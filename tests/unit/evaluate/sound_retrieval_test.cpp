// Retrieval among pictures, captions and sounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "byte_tokenizer.h"
#include "data/image/encode.h"
#include "evaluate/modality_centres.h"
#include "evaluate/per_sample.h"
#include "evaluate/retrieval_data.h"
#include "nn/init.h"
#include "temporary_folder.h"
#include "wav_file.h"

namespace fathom::sound_retrieval_test {
namespace {

using ::testing::HasSubstr;

/// Six records: 0 to 2 have everything, 3 no picture, 4 no sound, 5 no captions.
class SoundRetrieval : public ::testing::Test {
 protected:
  SoundRetrieval() {
    for (int64_t i = 0; i < 6; ++i) {
      Record& record = records_.emplace_back();
      record.source = fmt::format("row {}", i);
      if (i != 3) record.image_path = folder_ / fmt::format("{}.png", i);
      if (i != 4) record.audio_path = folder_ / fmt::format("{}.wav", i);
      if (i != 5) record.captions = {fmt::format("of {}", i), fmt::format("again {}", i)};
      record.tags["unseen"] = i % 2 == 0 ? "true" : "false";
      const Image image{
          .height = 16, .width = 16, .pixels = std::vector<uint8_t>(768, static_cast<uint8_t>(40 * i))};
      write_file_atomically(folder_ / fmt::format("{}.png", i), encode_png(image));
      std::vector<int16_t> wave(3200);
      for (size_t k = 0; k < wave.size(); ++k)
        wave[k] = static_cast<int16_t>(k % (20 + 9 * static_cast<size_t>(i)) < 10 ? 9000 : -9000);
      write_file_atomically(folder_ / fmt::format("{}.wav", i), wav_file(wave, 16000));
    }
    DualTowerConfig config;
    config.vision = {
        .image_size = 16, .patch_size = 2, .dim = 8, .depths = {1, 1}, .heads = {2, 2}, .window = 4};
    config.text = {.vocab_size = 300, .dim = 16, .layers = 1, .heads = 2, .max_positions = 12};
    config.audio_tower = true;
    config.audio = {.bands = 10, .dim = 16, .layers = 1, .heads = 2, .max_frames = 40};
    config.embed_dim = 12;
    config.centred = true;
    model_ = DualTower(config);
    init_parameters(*model_, 1);
    inputs_.image.size = 16;
    inputs_.audio.bands = 10;
    inputs_.audio.max_seconds = 0.3;
    inputs_.text.max_tokens = 12;
    inputs_.text.end_token = "";
  }
  RetrievalData data(bool audio_tower = true) const {
    return {std::make_shared<const Dataset>(folder_.path(), DataFormat::kJsonLines, records_,
                                            std::make_shared<DataReport>()),
            inputs_,
            std::make_shared<const Tokenizer>(byte_tokenizer()),
            {.audio_tower = audio_tower}};
  }

  TemporaryFolder folder_;
  std::vector<Record> records_;
  DualTower model_{nullptr};
  ModelInputs inputs_;
};

/// 1 + the wrong candidates that are not behind the best right one.
std::vector<int64_t> ranks(const at::Tensor& query_QD, const std::vector<int64_t>& query_record,
                           const at::Tensor& candidate_CD, const std::vector<int64_t>& candidate_record) {
  std::vector<int64_t> found;
  const at::Tensor score = at::mm(query_QD.to(at::kDouble), candidate_CD.to(at::kDouble).t());
  for (size_t q = 0; q < query_record.size(); ++q) {
    double best = -2;
    for (size_t c = 0; c < candidate_record.size(); ++c)
      if (candidate_record[c] == query_record[q])
        best = std::max(best, score[static_cast<int64_t>(q)][static_cast<int64_t>(c)].item<double>());
    if (best == -2) continue;
    int64_t rank = 1;
    for (size_t c = 0; c < candidate_record.size(); ++c)
      rank += candidate_record[c] != query_record[q] &&
              score[static_cast<int64_t>(q)][static_cast<int64_t>(c)].item<double>() >= best - 1e-7;
    found.push_back(rank);
  }
  return found;
}

/// Thirty records that differ in every way.
TEST_F(SoundRetrieval, MeasuredCentresLeaveNoMean) {
  const torch::NoGradGuard no_grad;
  records_.clear();
  Random random(5);
  for (int64_t i = 0; i < 30; ++i) {
    Record& record = records_.emplace_back();
    record.image_path = folder_ / fmt::format("noise {}.png", i);
    record.audio_path = folder_ / fmt::format("noise {}.wav", i);
    for (int letter = 0; letter < 8; ++letter) record.text += static_cast<char>('a' + random.below(26));
    record.captions = {record.text};
    Image image{.height = 16, .width = 16, .pixels = std::vector<uint8_t>(768)};
    for (uint8_t& value : image.pixels) value = static_cast<uint8_t>(random.below(256));
    write_file_atomically(record.image_path, encode_png(image));
    const int64_t period = 4 + random.below(60);
    std::vector<int16_t> wave(3200);
    for (size_t k = 0; k < wave.size(); ++k)
      wave[k] = static_cast<int16_t>(static_cast<int64_t>(k) % period * 100 + random.below(1 + 200 * i));
    write_file_atomically(record.audio_path, wav_file(wave, 16000));
  }
  const RetrievalData all = data();
  const auto means = [&] {
    return std::vector<double>{embed_images(model_, all.images).mean(0).norm().item<double>(),
                               embed_texts(model_, all.texts).mean(0).norm().item<double>(),
                               embed_sounds(model_, all.sounds).mean(0).norm().item<double>()};
  };
  const std::vector<at::Tensor> centres = model_->centres();
  for (const at::Tensor& centre_D : centres) centre_D.fill_(0.05);
  const std::vector<double> before = means();
  const std::vector<at::Tensor> found = measure_centres(model_, all);
  EXPECT_EQ(means(), before) << "the model keeps its own";
  EXPECT_TRUE(at::equal(measure_centres(model_, data(/*audio_tower=*/false))[2], centres[2]))
      << "no sounds: its own";
  for (size_t i = 0; i < centres.size(); ++i) centres[i].copy_(found[i]);
  const std::vector<double> after = means();
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_LT(after[i], 0.02) << i;
    EXPECT_GT(before[i], 0.2) << i;
  }
}

TEST_F(SoundRetrieval, AMeasurementThatFailsLeavesTheModelItsCentres) {
  const torch::NoGradGuard no_grad;
  write_file_atomically(records_[2].image_path, "no picture");
  for (const at::Tensor& centre_D : model_->centres()) centre_D.fill_(0.05);
  EXPECT_THROW(measure_centres(model_, data()), Error);
  for (const at::Tensor& centre_D : model_->centres())
    EXPECT_TRUE(at::equal(centre_D, at::full_like(centre_D, 0.05)));
}

TEST_F(SoundRetrieval, GivesAllSixDirectionsOfWhatIsThere) {
  const RetrievalData all = data();
  const MeasuredData measured = measure_retrieval(model_, all);
  const std::vector<int64_t> image{0, 1, 2, 4, 5}, sound{0, 1, 2, 3, 5}, text{0, 0, 1, 1, 2, 2, 3, 3, 4, 4};
  EXPECT_EQ(all.record_of_image, image);
  EXPECT_EQ(all.record_of_sound, sound);
  const at::Tensor image_ID = embed_images(model_, all.images), sound_AD = embed_sounds(model_, all.sounds),
                   text_CD = embed_texts(model_, all.texts);
  const auto expect = [&](const RecallFigures& got, const std::vector<int64_t>& expected) {
    const RecallFigures wanted = recall_figures(expected);
    EXPECT_EQ(got.queries, wanted.queries);
    EXPECT_EQ(got.r1, wanted.r1);
    EXPECT_EQ(got.r5, wanted.r5);
    EXPECT_EQ(got.median_rank, wanted.median_rank);
  };
  const auto& report = measured.report;
  const std::vector<int64_t> with_image{0, 0, 1, 1, 2, 2, 4, 4}, with_sound{0, 0, 1, 1, 2, 2, 3, 3};
  const auto rows = [&](const std::vector<int64_t>& places) {
    return text_CD.index_select(0, torch::tensor(places, at::kLong));
  };
  const at::Tensor of_images = rows({0, 1, 2, 3, 4, 5, 8, 9}), of_sounds = rows({0, 1, 2, 3, 4, 5, 6, 7});
  expect(report.all.t2i, ranks(of_images, with_image, image_ID, image));
  expect(report.all.i2t, ranks(image_ID, image, of_images, with_image));
  ASSERT_EQ(report.all.sound.size(), 4u);
  expect(report.all.sound.at("t2a"), ranks(of_sounds, with_sound, sound_AD, sound));
  expect(report.all.sound.at("a2t"), ranks(sound_AD, sound, of_sounds, with_sound));
  const std::vector<int64_t> seen_sound{0, 1, 2, 5};
  const at::Tensor seen_AD = sound_AD.index_select(0, torch::tensor({0, 1, 2, 4}, at::kLong));
  expect(report.all.sound.at("a2i"), ranks(seen_AD, seen_sound, image_ID, image));
  expect(report.all.sound.at("i2a"), ranks(image_ID, image, seen_AD, seen_sound));
}

TEST_F(SoundRetrieval, KeepsWhatBecameOfEachQueryInAllDirections) {
  const RetrievalData all = data();
  const MeasuredData measured = measure_retrieval(model_, all);
  const std::vector<SampleResult> results = sample_results(measured, all);
  for (const auto& [direction, figures] : measured.report.all.named()) {
    std::vector<int64_t> ranks, unseen;
    for (const SampleResult& result : results) {
      if (result.measure != direction) continue;
      ranks.push_back(result.rank);
      if (result.groups == std::vector<std::string>{"unseen=true"}) unseen.push_back(result.rank);
    }
    const RecallFigures found = recall_figures(ranks);
    EXPECT_EQ(found.queries, figures.queries) << direction;
    EXPECT_EQ(found.r1, figures.r1) << direction;
    EXPECT_EQ(found.median_rank, figures.median_rank) << direction;
    const RetrievalDirections& group = measured.report.groups.at("unseen=true");
    for (const auto& [name, expected] : group.named())
      if (name == direction) {
        EXPECT_EQ(recall_figures(unseen).median_rank, expected.median_rank) << direction;
      }
  }
  // Of record 3, which has no picture, its captions and its sound ask; of record 4 nothing asks by sound.
  std::multiset<std::string> asked;
  for (const SampleResult& result : results)
    if (result.cluster == "row 3" || (result.cluster == "row 4" && result.measure.front() == 'a'))
      asked.insert(result.measure + " " + result.query);
  EXPECT_EQ(asked, (std::multiset<std::string>{"a2t row 3", "t2a of 3", "t2a again 3"}));
  write_sample_results(folder_ / "all.jsonl", results);
  EXPECT_EQ(read_sample_results(folder_ / "all.jsonl").size(), results.size());
}

TEST_F(SoundRetrieval, NamesAllDirectionsInJson) {
  const RetrievalReport report = evaluate_retrieval(model_, data());
  const Json json = report.to_json();
  EXPECT_EQ(json.at("sounds").as_int(), 5);
  for (const char* direction : {"t2i", "i2t", "t2a", "a2t", "a2i", "i2a"}) {
    EXPECT_GE(json.at(direction).at("r10").as_double(), 0) << direction;
    EXPECT_GT(json.at("chance").at(direction).at("r1").as_double(), 0) << direction;
    EXPECT_TRUE(json.at("groups").at("unseen=true").at(direction).at("median_rank").as_double() >= 1)
        << direction;
  }
  EXPECT_EQ(json.at("groups").size(), 2u) << "no group of sounds without a picture";
  // Of five pictures at random; four sounds with a picture each.
  EXPECT_NEAR(json.at("chance").at("a2i").at("r1").as_double(), 20, 1e-9);
  EXPECT_NEAR(json.at("chance").at("i2a").at("r1").as_double(), 25, 1e-9);
}

TEST_F(SoundRetrieval, SaysWhatShareOfTheGatedLayersWasComputed) {
  EXPECT_EQ(evaluate_retrieval(model_, data()).to_json().find("density"), nullptr);
  DualTowerConfig config = model_->config();
  config.text.layers = 2;
  config.text.gate = {.kind = GateKind::kAlternate, .density = 0.5};
  DualTower gated(config);
  init_parameters(*gated, 1);
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(evaluate_retrieval(gated, data()).to_json().at("density").as_double(), 0.5);
  for (auto [name, gate] : gates_of(*gated)) gate->set_bypassed(true);
  EXPECT_FALSE(evaluate_retrieval(gated, data()).density.has_value());
}

TEST_F(SoundRetrieval, NamesRowsOfOneModality) {
  EXPECT_THROW(data(/*audio_tower=*/false), Error) << "rows without picture or captions";
  records_[4].captions.clear();
  try {
    data();
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(std::string(error.what()), HasSubstr("row 4: retrieval needs two at least"));
  }
}

}  // namespace
}  // namespace fathom::sound_retrieval_test
