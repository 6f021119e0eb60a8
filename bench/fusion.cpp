// What do the ways of bringing a picture into a language model cost: parameters, operations and time?
//
//   bench_fusion RECIPE
//
// The model of the recipe (recipes/easy-vqa.toml) as progressive, concat_pooled and concat_tokens, with 512
// tokens and 13 answers, on questions of 12 tokens: operations of one forward pass a question, and
// milliseconds of one pass over 1 and over 32 questions, float32, one thread, CPU time, rounds of the three
// alternating. One JSON line a kind; status 1 where progressive has more than 12 % more parameters than
// concat_pooled.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "measure/result.h"
#include "models/fusion/model.h"
#include "nn/init.h"
#include "train/recipe.h"

namespace fathom {
namespace {

constexpr int kRounds = 15, kWarmUpRounds = 3;
constexpr int64_t kVocabulary = 512, kTokens = 12;
constexpr double kMostParameters = 1.12;  ///< of concat_pooled's
const std::vector<int64_t> kBatches = {1, 32};

struct Subject {
  explicit Subject(const FusionConfig& config) : model(config), times(kBatches.size()) {
    init_parameters(*model, 1);
    model->eval();
    for (const at::Tensor& parameter : model->parameters()) parameters += parameter.numel();
    flops = forward_flops(config, 1, kTokens);
  }
  double pass(int64_t batch) {
    const int64_t size = model->config().vision.image_size;
    const auto image = at::randn({batch, 3, size, size});
    const PromptedTokens text{at::randint(kVocabulary, {batch, kTokens}, at::kLong),
                              at::full({batch}, kTokens, at::kLong)};
    const double start = bench::cpu_seconds();
    model->class_logits(model->perceive(image), text);
    return 1e3 * (bench::cpu_seconds() - start);
  }
  Fusion model;
  int64_t parameters = 0, flops = 0;
  std::vector<std::vector<double>> times;  ///< by batch
};

std::vector<Subject> make_subjects(const std::string& path) {
  ConfigTree tree = read_toml_file(path);
  apply_override(tree, "data.train.path=.");  // no data is read
  FusionConfig config = read_config<RecipeConfig>(tree).fusion;
  config.text.vocab_size = kVocabulary;
  config.answers.clear();
  for (int i = 0; i < 13; ++i) config.answers.push_back(fmt::format("{}", i));
  std::vector<Subject> subjects;
  for (const FusionKind kind :
       {FusionKind::kConcatPooled, FusionKind::kProgressive, FusionKind::kConcatTokens}) {
    config.fusion = kind;
    subjects.emplace_back(config);
  }
  return subjects;
}

Json line_of(const Subject& subject, const Subject& pooled) {
  Json line = bench::new_line("fusion", bench::processor_name());
  line["fusion"] = fusion_name(subject.model->config().fusion);
  line["parameters"] = subject.parameters;
  line["flops"] = subject.flops;
  line["threads"] = 1;
  const auto against = [&](const char* name, double ours, double theirs) {
    line[fmt::format("{}_ratio", name)] = ours / theirs;
  };
  against("parameters", static_cast<double>(subject.parameters), static_cast<double>(pooled.parameters));
  against("flops", static_cast<double>(subject.flops), static_cast<double>(pooled.flops));
  for (size_t b = 0; b < kBatches.size(); ++b) {
    const std::string name = fmt::format("batch_{}", kBatches[b]);
    line[name + "_ms"] = bench::median(subject.times[b]);
    bench::add_spread(line, name + "_ratio", bench::ratios(subject.times[b], pooled.times[b]));
  }
  line["rounds"] = kRounds;
  return line;
}

/// Whether progressive fusion keeps within its share of parameters.
bool run(const std::string& path) {
  const at::NoGradGuard no_grad;
  std::vector<Subject> subjects = make_subjects(path);
  for (int round = -kWarmUpRounds; round < kRounds; ++round)
    for (size_t b = 0; b < kBatches.size(); ++b)
      for (Subject& subject : subjects) {
        const double milliseconds = subject.pass(kBatches[b]);
        if (round >= 0) subject.times[b].push_back(milliseconds);
      }
  const Subject& pooled = subjects.front();
  bool small = true;
  for (const Subject& subject : subjects) {
    bench::print_line(line_of(subject, pooled));
    if (subject.model->config().progressive())
      small =
          static_cast<double>(subject.parameters) <= kMostParameters * static_cast<double>(pooled.parameters);
  }
  return small;
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  using namespace fathom;
  if (argc != 2) {
    fmt::print(stderr, "usage: bench_fusion RECIPE\n");
    return 2;
  }
  try {
    at::set_num_threads(1);
    if (run(argv[1])) return 0;
    fmt::print(stderr, "progressive has more than 12 % more parameters than concat_pooled\n");
    return 1;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_status(error.kind());
  }
}
