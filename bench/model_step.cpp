// How long does one training step (forward and backward) of our models take on a CPU, beside eager PyTorch?
//
//   bench_model_step --peer "python bench/peers/model_step.py"
//
// Decoder: 4 layers × 256, vocabulary 4,096, 8 windows of 256 tokens, against transformers' Llama. Swin: 64
// pixels in windows of 4, 8 images at Swin-T's widths, against timm's. One thread each, rounds alternate, CPU
// seconds, so that other work on the machine counts little. In bf16 the peer is cast whole; ours keeps
// float32 parameters, as training does. One JSON line a case.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/version.h"
#include "models/language/model.h"
#include "models/swin/model.h"
#include "nn/init.h"
#include "measure/peer_process.h"

namespace fathom {
namespace {

constexpr int kRounds = 9;
constexpr int kWarmUpRounds = 2;

struct Case {
  std::string name;
  std::string dtype;
  std::function<void()> step;
};

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

ForwardContext context_of(const std::string& dtype) {
  ForwardContext context = {.training = true};
  if (dtype == "bf16") context.compute_dtype = at::kBFloat16;
  return context;
}

Case decoder_case(const std::string& dtype) {
  LanguageModel model(LanguageModelConfig{.vocab_size = 4096,
                                          .dim = 256,
                                          .layers = 4,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .mlp_dim = 704,
                                          .max_positions = 256});
  init_parameters(*model, 1);
  const auto tokens = at::randint(4096, {8, 256}, at::kLong);
  return {"decoder", dtype, [model, tokens, dtype]() mutable {
            model->zero_grad();
            const auto logits = model(tokens, at::Tensor(), context_of(dtype));
            at::cross_entropy_loss(logits.flatten(0, 1).to(at::kFloat), tokens.flatten()).backward();
          }};
}

Case swin_case(const std::string& dtype) {
  SwinConfig config;
  config.image_size = 64;
  config.window = 4;
  config.depths = {2, 2, 6};
  config.heads = {3, 6, 12};
  config.drop_path = 0.0;
  Swin model(config);
  init_parameters(*model, 1);
  const auto image = at::randn({8, 3, 64, 64});
  return {"swin", dtype, [model, image, dtype]() mutable {
            model->zero_grad();
            model(image, context_of(dtype)).to(at::kFloat).square().mean().backward();
          }};
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line))
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

Json measure(const Case& subject, bench::PeerProcess* peer) {
  std::vector<double> ours, theirs, ratios;
  for (int round = -kWarmUpRounds; round < kRounds; ++round) {
    const double start = cpu_seconds();
    subject.step();
    const double seconds = cpu_seconds() - start;
    const double other = peer ? std::stod(peer->ask(subject.name + " " + subject.dtype)) : 0.0;
    if (round < 0) continue;
    ours.push_back(seconds);
    theirs.push_back(other);
    ratios.push_back(other / seconds);
  }
  Json line = Json::object();
  line["bench"] = "model_step";
  line["hardware"] = processor_name();
  line["commit"] = commit();
  line["model"] = subject.name;
  line["dtype"] = subject.dtype;
  line["threads"] = 1;
  line["ours_ms"] = 1e3 * quantile(ours, 0.5);
  if (peer == nullptr) return line;
  line["pytorch_ms"] = 1e3 * quantile(theirs, 0.5);
  line["ratio"] = quantile(ratios, 0.5);
  line["ratio_10_percent"] = quantile(ratios, 0.1);
  line["ratio_90_percent"] = quantile(ratios, 0.9);
  line["rounds"] = kRounds;
  return line;
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  using namespace fathom;
  if (argc != 1 && !(argc == 3 && std::string(argv[1]) == "--peer")) {
    fmt::print(stderr, "usage: bench_model_step [--peer COMMAND]\n");
    return 2;
  }
  try {
    at::set_num_threads(1);
    ::mallopt(M_MMAP_THRESHOLD, 32 << 20);  // as `fathom train` does
    ::mallopt(M_TRIM_THRESHOLD, 2000 << 20);
    const auto peer = argc == 3 ? std::make_unique<bench::PeerProcess>(argv[2]) : nullptr;
    for (const char* dtype : {"fp32", "bf16"})
      for (const auto& subject : {decoder_case(dtype), swin_case(dtype)}) {
        fmt::print("{}\n", measure(subject, peer.get()).dump());
        std::fflush(stdout);
      }
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_status(error.kind());
  }
  return 0;
}
