// What does one token through all layers of a decoder cost, the kernel alone (kernels/decode_layers)?
//
//   bench_decode --device cuda [--precision bf16|fp16] [--layers N] [--dim D] [--batch B] [--context T]
//   [--json]
//
// A decoder of heads of 64 numbers and feed-forward layers of 11/4 of its width on random weights: dense, and
// with causal gates in all layers of which two in five let a sequence through, drawn once. Launched token by
// token, so at least what the host needs for a launch; the fastest of seven rounds. One JSON line.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/decode_layers.h"
#include "measure/program.h"
#include "measure/result.h"
#include "measure/roofline.h"
#include "tensor/device.h"

namespace fathom::bench {
namespace {

constexpr int64_t kHeadSize = 64;
constexpr int64_t kTokensOfARound = 100;
constexpr int kRounds = 7;
constexpr double kDensity = 0.4;

struct DecodeOptions {
  std::string device = "cuda", precision = "bf16";
  int64_t layers = 24, dim = 1024, batch = 1, context = 1024;
  bool as_json = true;
};

/// A decoder's weights and caches, and what a token needs of them.
class Decoder {
 public:
  Decoder(const DecodeOptions& options, at::TensorOptions tensors, bool is_gated)
      : options_(options), tensors_(tensors) {
    const int64_t heads = options.dim / kHeadSize;
    const auto integers = tensors.dtype(at::kInt);
    const at::Tensor angle_TF = at::randn({1, kHeadSize / 2}, tensors.dtype(at::kFloat));
    step_ = {.heads = {heads, heads},
             .position = options.context,
             .cos_TF = angle_TF.cos(),
             .sin_TF = angle_TF.sin(),
             .key_count_LB = at::full({options.layers, options.batch}, options.context, integers),
             .meeting = at::zeros({2 + options.batch * heads}, integers)};
    const at::Tensor active_L = at::rand({options.layers}).lt(kDensity);
    for (int64_t i = 0; i < options.layers; ++i) {
      step_.layers.push_back(layer());
      if (is_gated) add_gate(step_.layers.back(), active_L[i].item<bool>());
    }
    x_BD_ = random({options.batch, options.dim});
    if (!kernels::has_decode_layers(x_BD_, step_))
      fail(ErrorKind::kUsage, "bench_decode: no kernel for this device and these sizes");
  }

  /// Milliseconds a token.
  double token_ms(DeviceRuntime& runtime) {
    const double start = clock_seconds(runtime);
    for (int64_t i = 0; i < kTokensOfARound; ++i) kernels::decode_layers(x_BD_, step_);
    const double ms = 1e3 * (clock_seconds(runtime) - start) / static_cast<double>(kTokensOfARound);
    step_.key_count_LB.fill_(options_.context);
    return ms;
  }

  double active_share() {
    const double share = kernels::decode_layers(x_BD_, step_).second.to(at::kDouble).mean().item<double>();
    step_.key_count_LB.fill_(options_.context);
    return share;
  }

  /// Of what a token reads when all layers compute it.
  double bytes() const {
    double numbers = 0;
    for (const kernels::DecodeLayer& layer : step_.layers) {
      const kernels::CountedWeights& w = layer.weights;
      for (const at::Tensor& weight : {w.qkv, w.output, w.gate_up, w.down})
        numbers += static_cast<double>(weight.numel());
      numbers += 2 * static_cast<double>(options_.batch * options_.context * options_.dim);
    }
    return 2 * numbers;
  }

 private:
  at::Tensor random(at::IntArrayRef sizes, double scale = 1) const {
    return (at::randn(sizes, tensors_.dtype(at::kFloat)) * scale).to(tensors_.dtype());
  }

  kernels::DecodeLayer layer() const {
    const int64_t dim = options_.dim, inner = dim * 11 / 4 / 64 * 64,
                  capacity = options_.context + kTokensOfARound;
    const std::vector<int64_t> cache = {options_.batch, dim / kHeadSize, capacity, kHeadSize};
    return {.weights = {.attention_norm = at::ones({dim}, tensors_),
                        .qkv = random({3 * dim, dim}, 0.02),
                        .output = random({dim, dim}, 0.02),
                        .mlp_norm = at::ones({dim}, tensors_),
                        .gate_up = random({2 * inner, dim}, 0.02),
                        .down = random({dim, inner}, 0.02)},
            .keys = random(cache),
            .values = random(cache)};
  }

  /// Its bias alone decides, so that every round skips the same layers.
  void add_gate(kernels::DecodeLayer& layer, bool is_active) const {
    const int64_t dim = options_.dim, inner = std::max<int64_t>(32, dim / 8);
    layer.scorer = {.norm = at::ones({dim}, tensors_),
                    .project = random({2 * inner, dim}, 0.02),
                    .behind = {.shift = at::zeros({2 * inner}, tensors_),
                               .out = at::zeros({inner}, tensors_),
                               .bias = at::full({1}, is_active ? 1 : -1, tensors_)}};
    layer.gate_sum_B1I = at::zeros({options_.batch, 1, inner}, tensors_.dtype(at::kFloat));
  }

  DecodeOptions options_;
  at::TensorOptions tensors_;
  kernels::DecodeStep step_;
  at::Tensor x_BD_;
};

void run_decode(const DecodeOptions& options) {
  const at::Device device = select_device(options.device);
  if (options.dim % 64 != 0) fail(ErrorKind::kUsage, "--dim {}: expected a multiple of 64", options.dim);
  const at::NoGradGuard no_grad;
  const auto runtime = make_device_runtime(device);
  runtime->activate();
  at::manual_seed(1);
  const auto tensors = at::TensorOptions().device(device).dtype(type_named(options.precision));
  Decoder dense(options, tensors, false), gated(options, tensors, true);
  const auto times = take_turns({{"dense", [&] { return dense.token_ms(*runtime); }},
                                 {"gated", [&] { return gated.token_ms(*runtime); }}},
                                {.warm_up = 1, .counted = kRounds});
  const auto best = [&](const char* name) { return *std::ranges::min_element(times.at(name)); };
  Json line = new_line("decode", runtime->name());
  line["precision"] = options.precision;
  line["layers"] = options.layers;
  line["dim"] = options.dim;
  line["batch"] = options.batch;
  line["context"] = options.context;
  line["dense_ms"] = best("dense");
  line["gated_ms"] = best("gated");
  line["gated_faster"] = best("dense") / best("gated");
  line["gated_density"] = gated.active_share();
  line["dense_gigabytes_per_second"] = 1e-9 * dense.bytes() / (1e-3 * best("dense"));
  print_line(line);
}

void add_options(CLI::App& app, DecodeOptions& options) {
  app.add_option("--device", options.device, "cuda or cuda:N")->capture_default_str();
  app.add_option("--precision", options.precision, "of weights and states")
      ->check(CLI::IsMember({"bf16", "fp16"}))
      ->capture_default_str();
  app.add_option("--layers", options.layers, "of the decoder")
      ->check(CLI::Range(1, 96))
      ->capture_default_str();
  app.add_option("--dim", options.dim, "their width")->check(CLI::Range(64, 8192))->capture_default_str();
  app.add_option("--batch", options.batch, "sequences")->check(CLI::Range(1, 64))->capture_default_str();
  app.add_option("--context", options.context, "keys that each layer has of a sequence")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_flag("--json", options.as_json, "as it is without: nothing but JSON is printed");
}

}  // namespace
}  // namespace fathom::bench

int main(int argc, char** argv) {
  CLI::App app("Times one token through all layers of a decoder, the kernel alone.", "bench_decode");
  fathom::bench::DecodeOptions options;
  fathom::bench::add_options(app, options);
  return fathom::bench::run_program(app, argc, argv, [&] { fathom::bench::run_decode(options); });
}
