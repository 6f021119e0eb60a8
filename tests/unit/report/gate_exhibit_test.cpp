// What layers with gates computed, on a report's texts, pictures and sounds.
#include "report/gate_exhibit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>

#include "base/file.h"
#include "byte_tokenizer.h"
#include "data/image/encode.h"
#include "data/image/image.h"
#include "nn/init.h"
#include "nn/token_gate.h"
#include "report/lit_image.h"
#include "temporary_folder.h"

namespace fathom::gate_exhibit_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// Gates that compute everything or nothing, by their names.
void decide(const torch::nn::Module& model, const std::function<bool(const std::string&)>& computes) {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, gate] : gates_of(model))
    for (auto& item : gate->named_parameters()) {
      if (item.key() == "scorer.out") item.value().zero_();
      if (item.key() == "scorer.bias") item.value().fill_(computes(name) ? 5.0 : -5.0);
    }
}

Image picture() {
  Image image{.height = 16, .width = 16, .pixels = std::vector<uint8_t>(768, 90)};
  for (size_t i = 0; i < 768; ++i) image.pixels[i] = static_cast<uint8_t>(40 + 200 * i / 768);
  return image;
}

std::string page_of(const std::vector<GateExhibit>& exhibits) {
  HtmlWriter page;
  write_gates(page, exhibits);
  return page.finish();
}

GatedEncoders vision_alone() {
  Swin vision(SwinConfig{.image_size = 16,
                         .patch_size = 2,
                         .dim = 8,
                         .depths = {1, 1},
                         .heads = {2, 2},
                         .window = 4,
                         .gate = {.kind = GateKind::kToken}});
  init_parameters(*vision, 1);
  return {.vision = vision};
}

TEST(GateExhibit, PicturesAreDarkWhereALayerComputesNothing) {
  GatedEncoders model = vision_alone();
  decide(*model.vision, [](const std::string& name) { return name != "1.0.mlp"; });
  Sample sample;
  sample.images.push_back(picture());
  const auto exhibits = exhibit_gates(model, {sample}, nullptr, {});
  ASSERT_EQ(exhibits.size(), 1u);
  EXPECT_FALSE(exhibits[0].text);
  ASSERT_EQ(exhibits[0].pictures.size(), 1u);
  const GatedPicture& shown = exhibits[0].pictures[0];
  std::vector<std::string> names;
  for (const auto& layer : shown.layers) names.push_back(layer.name);
  EXPECT_EQ(names, (std::vector<std::string>{"0.0.attention", "0.0.mlp", "1.0.attention", "1.0.mlp"}));
  const auto expected = [](double light, int64_t pixels) {
    return jpeg_uri(resize(lit(picture(), torch::full({16, 16}, light)), pixels, pixels, Filter::kBicubic));
  };
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(shown.layers[i].share, i < 3 ? 1 : 0);
    EXPECT_EQ(shown.layers[i].picture, expected(i < 3 ? 1 : 0, 96)) << i;
  }
  EXPECT_NE(expected(1, 96), expected(0, 96));
  EXPECT_EQ(shown.whole, expected(1, 144));
  EXPECT_EQ(shown.light, expected(0.75, 144));
  const std::string page = page_of(exhibits);
  for (const char* text :
       {"What each layer computes", "image encoder, layer by layer", "0.0.attention: 100 %", "1.0.mlp: 0 %"})
    EXPECT_THAT(page, HasSubstr(text));
  EXPECT_THAT(page, HasSubstr(shown.light));
  EXPECT_THAT(page, Not(HasSubstr("darker a token")));
}

TEST(GateExhibit, NothingIsShownOfWhatIsDenseOrRunSo) {
  GatedEncoders model = vision_alone();
  Sample sample;
  sample.images.push_back(picture());
  for (auto [name, gate] : gates_of(*model.vision)) gate->set_bypassed(true);
  EXPECT_TRUE(exhibit_gates(model, {sample}, nullptr, {}).empty());
  EXPECT_EQ(page_of({}), "");
}

TEST(GateExhibit, TextsShowTheirLayersDecisions) {
  const Tokenizer tokenizer = byte_tokenizer();
  LanguageModel model(
      LanguageModelConfig{.vocab_size = 300,
                          .dim = 16,
                          .layers = 3,
                          .heads = 2,
                          .max_positions = 16,
                          .gate = {.kind = GateKind::kCausal, .layer_density = {0.5, 1, 0.5}}});
  init_parameters(*model, 1);
  {
    const torch::NoGradGuard no_grad;
    for (auto& item : model->named_parameters())
      if (item.key().ends_with("scorer.out"))
        item.value().mul_(200);
      else if (item.key().ends_with("scorer.bias"))
        item.value().zero_();
  }
  const Sample sample = text_sample(model, tokenizer, "a <b> of many words and more");
  ASSERT_EQ(sample.token_rows.size(), 1u);
  ASSERT_EQ(sample.token_rows[0].size(), 16u);
  const auto exhibits = exhibit_gates({.text = model}, {sample}, &tokenizer, {});
  ASSERT_EQ(exhibits.size(), 1u);
  ASSERT_TRUE(exhibits[0].text);
  const GatedText& text = *exhibits[0].text;
  EXPECT_EQ(text.tokens[2], "<");
  ASSERT_EQ(text.layers.size(), 2u);
  EXPECT_EQ(text.layers[1].name, "2");
  GateTrace trace;
  const auto& row = sample.token_rows[0];
  model->hidden(torch::tensor(std::vector<int64_t>(row.begin(), row.end())).unsqueeze(0), {},
                {.gate_trace = &trace});
  bool differ = false;
  for (const auto& [layer, place] : {std::pair<int64_t, size_t>{0, 0}, {2, 1}})
    for (int64_t t = 0; t < 16; ++t) {
      const bool active = trace.active_BT.at(layer)[0][t].item<bool>();
      EXPECT_EQ(text.layers[place].kept[static_cast<size_t>(t)], active) << layer << " " << t;
      differ = differ || active != text.layers[0].kept[0];
    }
  EXPECT_TRUE(differ);
  const std::string page = page_of(exhibits);
  EXPECT_THAT(page, HasSubstr("of 2 layers"));
  EXPECT_THAT(page, HasSubstr("layer 2"));
  EXPECT_THAT(page, HasSubstr("&lt;"));
  EXPECT_THAT(page, Not(HasSubstr("brighter a place")));
  EXPECT_TRUE(exhibit_gates({.text = model}, {text_sample(model, tokenizer, "")}, &tokenizer, {}).empty());
}

TEST(GateExhibit, SoundsAreDarkLikewise) {
  AudioEncoder audio(AudioEncoderConfig{.bands = 10,
                                        .dim = 16,
                                        .layers = 2,
                                        .heads = 2,
                                        .max_frames = 100,
                                        .gate = {.kind = GateKind::kToken}});
  init_parameters(*audio, 1);
  decide(*audio, [](const std::string& name) { return name == "0"; });
  Sample sample;
  sample.spectrogram = {.num_bands = 10, .num_frames = 21, .values = std::vector<float>(210, 0)};
  sample.spectrogram->values[5] = 1;
  const auto exhibits = exhibit_gates({.audio = audio}, {sample}, nullptr, {});
  ASSERT_EQ(exhibits.size(), 1u);
  ASSERT_EQ(exhibits[0].pictures.size(), 1u);
  const GatedPicture& shown = exhibits[0].pictures[0];
  EXPECT_TRUE(shown.is_sound);
  ASSERT_EQ(shown.layers.size(), 2u);
  EXPECT_EQ(shown.layers[0].picture, shown.whole);
  EXPECT_NE(shown.layers[1].picture, shown.whole);
  EXPECT_THAT(page_of(exhibits), HasSubstr("audio encoder, layer by layer"));
}

TEST(GateExhibit, PicturesOfARetrievalSetBringTheirCaptions) {
  const TemporaryFolder folder;
  std::vector<Record> records;
  for (const char* name : {"0.png", "1.png"}) {
    write_file_atomically(folder / name, encode_png(picture()));
    Record& record = records.emplace_back();
    record.source = name;
    record.image_path = folder / name;
    record.captions = {std::string("of ") + name};
  }
  const auto tokenizer = std::make_shared<const Tokenizer>(byte_tokenizer());
  const RetrievalData data(std::make_shared<const Dataset>(folder.path(), DataFormat::kImageCaptions, records,
                                                           std::make_shared<DataReport>()),
                           ModelInputs{}, tokenizer, {});
  const auto samples = gate_samples(data, {});
  ASSERT_EQ(samples.size(), 2u);
  for (const Sample& sample : samples) {
    ASSERT_EQ(sample.images.size(), 1u);
    ASSERT_EQ(sample.token_rows.size(), 1u);
    EXPECT_THAT(tokenizer->decode(sample.token_rows[0]), HasSubstr("of " + sample.record.source));
  }
  EXPECT_TRUE(gate_samples(data, {.count = 0}).empty());
}

}  // namespace
}  // namespace fathom::gate_exhibit_test
