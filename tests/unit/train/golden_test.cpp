// Twenty AdamW steps from the same weights and batches as PyTorch: tests/golden/train_golden.py.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <sstream>

#include "base/file.h"
#include "base/json.h"
#include "formula_weights.h"
#include "models/language/hf_map.h"
#include "models/swin/hf_map.h"
#include "temporary_folder.h"
#include "train/task/contrastive.h"
#include "train/task/language.h"
#include "train/trainer.h"

namespace fathom::golden_test {
namespace {

constexpr int64_t kSteps = 20, kBatch = 8, kTokens = 16, kVocab = 97, kImageSize = 64;

LanguageModelConfig llama() {
  return {.vocab_size = kVocab,
          .dim = 48,
          .layers = 3,
          .heads = 6,
          .kv_heads = 2,
          .head_dim = 10,
          .mlp_dim = 80,
          .max_positions = 64,
          .rope_theta = 5000.0,
          .norm_eps = 1e-5,
          .tied_head = false};
}

/// Parameters of ours made of foreign tensors by formula.
void fill(torch::nn::Module& module, const WeightMap& map) {
  const torch::NoGradGuard no_grad;
  auto parameters = module.named_parameters();
  for (const WeightRule& rule : map) {
    at::Tensor* parameter = parameters.find(rule.parameter);
    ASSERT_NE(parameter, nullptr) << rule.parameter;
    std::vector<at::Tensor> parts;
    for (const WeightRule::Source& source : rule.sources) {
      std::vector<int64_t> shape = parameter->sizes().vec();
      if (rule.sources.size() > 1) shape[0] = source.rows;
      parts.push_back(testing::formula_weight(source.name, shape));
    }
    parameter->copy_(at::cat(parts).view(parameter->sizes()));
  }
}

at::Tensor uniform(const std::string& name, int64_t step, int64_t count) {
  return testing::formula_uniform(name + std::to_string(step), count);
}

/// Sample i is row i % kBatch of step i ÷ kBatch.
class FormulaSource : public SampleSource {
 public:
  FormulaSource(int64_t num_tokens, bool with_images) : num_tokens_(num_tokens), with_images_(with_images) {}
  int64_t size() const override { return kSteps * kBatch; }

  Sample load(int64_t index, int64_t) const override {
    Sample sample{.index = index};
    const at::Tensor unit = row("tokens", index, num_tokens_).add(1).div(2).mul(kVocab).floor().to(at::kInt);
    const int32_t* tokens = unit.const_data_ptr<int32_t>();
    sample.token_rows.emplace_back(tokens, tokens + num_tokens_);
    if (!with_images_) return sample;
    const at::Tensor bytes =
        row("image", index, kImageSize * kImageSize * 3).add(1).mul(128).floor().to(at::kByte);
    const uint8_t* pixels = bytes.const_data_ptr<uint8_t>();
    sample.images.push_back(
        {.height = kImageSize, .width = kImageSize, .pixels = {pixels, pixels + bytes.numel()}});
    return sample;
  }

 private:
  static at::Tensor row(const std::string& name, int64_t index, int64_t count) {
    return uniform(name, index / kBatch, kBatch * count).view({kBatch, count})[index % kBatch].contiguous();
  }
  int64_t num_tokens_;
  bool with_images_;
};

void expect_golden_losses(Task& task, std::shared_ptr<const SampleSource> source, const char* name) {
  const TemporaryFolder folder;
  TrainerConfig config;
  config.run_folder = folder.path();
  config.training = {.batch_size = kBatch, .max_steps = kSteps, .log_every = 1};
  config.optimizer = {
      .learning_rate = 3e-3, .beta1 = 0.9, .beta2 = 0.98, .weight_decay = 0.1, .clip_norm = 1.0};
  config.schedule.warmup_steps = 5;
  Loader loader(LoaderSetup{.source = std::move(source),
                            .sampler = {.batch_size = kBatch, .shuffle = false},
                            .loader = {.workers = 0}});
  const auto collective = make_solo_collective();
  const auto runtime = make_device_runtime(at::kCPU);
  Trainer(config, {task, loader, *collective, *runtime}).run();

  const Json golden = read_json_file(FATHOM_GOLDENS "/train_losses.json").at(name);
  std::istringstream log(read_file(folder / "log.jsonl"));
  std::string line;
  for (size_t step = 0; step < golden.size(); ++step) {
    ASSERT_TRUE(std::getline(log, line));
    const double expected = golden.as_array()[step].as_double();
    EXPECT_NEAR(parse_json(line, "log").at("loss").as_double(), expected, 1e-4 * expected) << "step " << step;
  }
}

TEST(TrainGolden, LanguageModelLosesAsTransformersLlama) {
  LanguageModel model(llama());
  fill(*model, language_weight_map(llama()));
  LanguageTask task({.model = model, .num_tokens = kTokens});
  expect_golden_losses(task, std::make_shared<FormulaSource>(kTokens + 1, false), "language");
}

DualTower formula_tower(RegionScore region) {
  DualTowerConfig config;
  config.vision = {
      .image_size = kImageSize, .dim = 16, .depths = {2, 2}, .heads = {2, 4}, .window = 4, .drop_path = 0.0};
  config.text = llama();
  config.text.tied_head = true;
  config.embed_dim = 24;
  config.region = region;
  DualTower model(config);
  fill(*model->vision(), swin_weight_map_timm(config.vision));
  fill(*model->text(), language_weight_map(config.text));
  const torch::NoGradGuard no_grad;
  for (auto& entry : model->named_parameters()) {
    if (entry.key().starts_with("vision.") || entry.key().starts_with("text.")) continue;
    if (entry.key().ends_with("log_scale"))
      entry.value().fill_(std::log(1 / 0.07));
    else
      entry.value().copy_(testing::formula_weight(entry.key(), entry.value().sizes()));
  }
  return model;
}

TEST(TrainGolden, DualTowerLosesAsTimmAndOpenClip) {
  ContrastiveTask task({.model = formula_tower(RegionScore::kNone),
                        .config = {.match_equal_captions = false},
                        .num_tokens = kTokens});
  expect_golden_losses(task, std::make_shared<FormulaSource>(kTokens, true), "contrastive");
}

TEST(TrainGolden, RegionScoresLoseAsWrittenOutInPyTorch) {
  for (const auto& [name, region] :
       {std::pair{"attention", RegionScore::kAttention}, std::pair{"late", RegionScore::kLate}}) {
    ContrastiveTask task({.model = formula_tower(region),
                          .config = {.match_equal_captions = false, .region_weight = 0.5},
                          .num_tokens = kTokens});
    expect_golden_losses(task, std::make_shared<FormulaSource>(kTokens, true), name);
  }
}

}  // namespace
}  // namespace fathom::golden_test
