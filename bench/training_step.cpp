// How long does a whole training step (forward, backward, norm, clipping, AdamW) take on a GPU with its data
// ready, how much of that is the host's fault, and how long does eager PyTorch take?
//
//   bench_training_step [--peer "python bench/peers/training_step.py"]
//
// The models of recipes/text-lm.toml (16 windows of 1,024 tokens) and recipes/flickr8k.toml (but 128 pictures
// of 160 pixels, two views and five captions each), bf16 products over float32 parameters on both sides.
// `replay_ms` is the same step recorded as one graph, as `training.record_step` does; `host_share` = 1 −
// replay ÷ launched step: what recording spares. The peer has no dropout. Rounds alternate. One JSON line a
// model.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/version.h"
#include "distributed/collective.h"
#include "distributed/data_parallel.h"
#include "models/model_folder.h"
#include "nn/init.h"
#include "measure/peer_process.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"
#include "train/optimizer.h"
#include "train/task/contrastive.h"
#include "train/task/language.h"

namespace fathom {
namespace {

constexpr int kRounds = 7;
constexpr int kSteps = 10;  ///< of a round

/// A task with one batch that stays on the device, and all that a step needs.
struct Subject {
  std::string name;
  std::unique_ptr<Task> task;
  std::vector<MicroBatch> batch;
  std::unique_ptr<Collective> collective = make_solo_collective();
  std::unique_ptr<GradientReducer> reducer;
  std::unique_ptr<AdamW> optimizer;

  void step() {
    const StepContext context{.total_steps = 1,
                              .global_samples = batch[0].batch.size(),
                              .collective = *collective,
                              .expect_last_backward = [this] { reducer->expect_last_backward(); }};
    task->before_step(batch, context);
    reducer->zero();
    task->forward_backward(batch, context);
    reducer->finish();
    const at::Tensor norm = gradient_norm(reducer->buckets());
    clip_gradients(reducer->buckets(), norm, 1.0);
    optimizer->step(norm.isfinite().logical_not().to(at::kFloat));
  }
};

Subject make_subject(std::string name, std::unique_ptr<Task> task, Batch batch) {
  Subject subject{.name = std::move(name), .task = std::move(task)};
  const at::Tensor key_B = batch.index_B.clone();
  subject.batch.push_back(
      {std::move(batch), ForwardContext{.training = true, .key_B = key_B, .compute_dtype = at::kBFloat16}});
  subject.reducer = std::make_unique<GradientReducer>(*subject.collective, subject.task->parameters());
  subject.optimizer =
      std::make_unique<AdamW>(group_parameters(subject.task->parameters(), {}), OptimizerConfig{});
  return subject;
}

Subject language_subject(at::Device device) {
  LanguageModel model(LanguageModelConfig{.vocab_size = 8192, .mlp_dim = 1376, .dropout = 0.2});
  init_parameters(*model, 1);
  model->to(device);
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  Batch batch{.index_B = at::arange(16, options), .tokens_BT = at::randint(8192, {16, 1025}, options)};
  return make_subject("language",
                      std::make_unique<LanguageTask>(LanguageTask::Setup{.model = model, .num_tokens = 1024}),
                      std::move(batch));
}

Subject contrastive_subject(at::Device device) {
  DualTowerConfig config;
  config.vision.image_size = 160;
  config.vision.window = 5;
  config.vision.drop_path = 0.2;
  config.text.vocab_size = 4096;
  config.text.max_positions = 32;
  config.text.dropout = 0.1;
  DualTower model(config);
  init_parameters(*model, 1);
  model->to(device);
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  Batch batch{.index_B = at::arange(128, options),
              .image_BCHW = at::randn({256, 3, 160, 160}, options.dtype(at::kFloat)),
              .tokens_BT = at::randint(1, 4096, {640, 24}, options),
              .length_B = at::randint(8, 25, {640}, options)};
  return make_subject("dual_tower",
                      std::make_unique<ContrastiveTask>(ContrastiveTask::Setup{
                          .model = model, .captions_per_image = 5, .views_per_image = 2}),
                      std::move(batch));
}

/// Milliseconds of each of `kSteps` calls, device work included.
double measure(DeviceRuntime& runtime, const std::function<void()>& work) {
  runtime.synchronize();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kSteps; ++i) work();
  runtime.synchronize();
  return 1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kSteps;
}

/// Milliseconds until the host has given one step to an idle device.
double launch_ms(DeviceRuntime& runtime, const std::function<void()>& work) {
  runtime.synchronize();
  const auto start = std::chrono::steady_clock::now();
  work();
  return 1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Json compare(Subject& subject, DeviceRuntime& runtime, bench::PeerProcess* peer) {
  for (int i = 0; i < 5; ++i) subject.step();
  const std::unique_ptr<DeviceGraph> graph = runtime.make_graph();
  if (graph) graph->capture([&] { subject.step(); });
  std::vector<double> ours, launches, replays, theirs, ratios;
  for (int round = -1; round < kRounds; ++round) {
    const double step = measure(runtime, [&] { subject.step(); });
    const double launch = launch_ms(runtime, [&] { subject.step(); });
    const double replay = graph ? measure(runtime, [&] { graph->replay(); }) : step;
    const double other = peer ? std::stod(peer->ask(subject.name)) : 0;
    if (round < 0) continue;
    ours.push_back(step), launches.push_back(launch), replays.push_back(replay), theirs.push_back(other);
    ratios.push_back(other / replay);
  }
  Json line = Json::object();
  line["bench"] = "training_step";
  line["hardware"] = runtime.name();
  line["commit"] = commit();
  line["model"] = subject.name;
  line["launched_ms"] = median(ours);
  line["launch_ms"] = median(launches);
  line["replay_ms"] = median(replays);
  line["host_share"] = 1 - median(replays) / median(ours);
  const double flops = subject.task->flops_per_sample() * static_cast<double>(subject.batch[0].batch.size());
  line["mfu"] = flops / (1e-3 * median(replays)) / runtime.peak_flops(at::kBFloat16);
  if (peer != nullptr) {
    line["pytorch_ms"] = median(theirs);
    line["ratio"] = median(ratios);
    line["ratio_lowest"] = *std::min_element(ratios.begin(), ratios.end());
    line["ratio_highest"] = *std::max_element(ratios.begin(), ratios.end());
  }
  line["rounds"] = kRounds;
  return line;
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  using namespace fathom;
  if (argc != 1 && !(argc == 3 && std::string(argv[1]) == "--peer")) {
    fmt::print(stderr, "usage: bench_training_step [--peer COMMAND]\n");
    return 2;
  }
  try {
    const at::Device device = select_device("cuda");
    const auto runtime = make_device_runtime(device);
    runtime->activate();
    const auto peer = argc == 3 ? std::make_unique<bench::PeerProcess>(argv[2]) : nullptr;
    for (auto* make : {language_subject, contrastive_subject}) {
      Subject subject = make(device);
      fmt::print("{}\n", compare(subject, *runtime, peer.get()).dump());
      std::fflush(stdout);
    }
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_status(error.kind());
  }
  return 0;
}
