// fathom bench sparse
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/version.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "tensor/device.h"
#include "train/sparse_benchmark.h"

namespace fathom::cli {
namespace {

struct BenchArguments {
  std::string device = "auto";
  std::string precision = "fp32";
  bool as_json = false;
  SparseBenchmarkConfig sparse;
};

void add_sparse_options(CLI::App& app, BenchArguments& arguments) {
  SparseBenchmarkConfig& config = arguments.sparse;
  const auto number = [&](const char* name, int64_t& value, const char* help) {
    app.add_option(name, value, help)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  };
  app.add_option("--device", arguments.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--precision", arguments.precision, "of activations and matrix products")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  app.add_option("--density", config.model.gate.density, "share of the tokens that each layer computes")
      ->check(CLI::Range(0.01, 0.99))
      ->capture_default_str();
  number("--layers", config.model.layers, "of the decoder");
  number("--dim", config.model.dim, "its width");
  number("--heads", config.model.heads, "its attention heads");
  number("--mlp-dim", config.model.mlp_dim, "inner width of its feed-forward layers");
  number("--vocabulary", config.model.vocab_size, "tokens it knows");
  number("--prefill-batch", config.prefill_batch, "sequences of the prefill");
  number("--prefill-tokens", config.prefill_tokens, "their length");
  number("--training-batch", config.training_batch, "sequences of the training step");
  number("--training-tokens", config.training_tokens, "their length");
  app.add_option("--decode-batch", config.decode_batches,
                 "sequences that are decoded together; several values")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--decode-context", config.decode_contexts,
                 "tokens that decoding finds in its cache; several values, each with every batch")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  number("--decode-tokens", config.decode_tokens, "tokens that are timed a round");
  number("--rounds", config.rounds, "timed, after one that is not; medians count");
  app.add_flag("--json", arguments.as_json, "print one JSON object");
}

void print_timing(const std::string& name, const SparseTiming& timing, double limit) {
  fmt::print("{:<22}{:>10.2f}{:>10.2f}{:>9.2f}x{:>9.2f}x{:>9.0f} %\n", name, timing.dense_ms, timing.gated_ms,
             timing.speedup(), limit, 100 * timing.speedup() / limit);
}

void print_sparse(const SparseBenchmarkReport& report) {
  fmt::print("{:<22}{:>10}{:>10}{:>10}{:>10}{:>11}\n", "milliseconds", "dense", "gated", "faster", "limit",
             "of limit");
  print_timing("prefill", report.prefill, report.prefill.limit());
  if (report.prefill_recorded)
    print_timing("prefill, recorded", *report.prefill_recorded, report.prefill_recorded->limit());
  print_timing("training step", report.training, report.training.limit());
  for (const DecodeTiming& decode : report.decode)
    print_timing(fmt::format("decode, {} × {}", decode.batch, decode.context), decode.timing, decode.limit());
  fmt::print(
      "limit: the blocks alone shrink; of decoding, sequences × tokens seen: by the bytes to be read\n");
  fmt::print("tokens computed: {:.1f} %; products executed: {:.1f} % of the dense model's\n",
             100 * report.activated_share, 100 * report.executed_flop_share);
}

int run_sparse(int argc, const char* const* argv) {
  VerbApp app("bench sparse",
              "Times a decoder with gates against the same one dense: prefill, training step, decoding.");
  BenchArguments arguments;
  add_sparse_options(app, arguments);
  if (!parse_options(app, argc, argv)) return 0;
  arguments.sparse.type = arguments.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  LanguageModelConfig& model = arguments.sparse.model;
  for (const int64_t context : arguments.sparse.decode_contexts)
    model.max_positions = std::max(model.max_positions, context + 1 + arguments.sparse.decode_tokens);
  model.validate();
  const at::Device device = select_device(arguments.device);
  const auto runtime = make_device_runtime(device);
  const SparseBenchmarkReport report = run_sparse_benchmark(arguments.sparse, *runtime);
  if (!arguments.as_json) {
    print_sparse(report);
    return 0;
  }
  Json json = report.to_json();
  json["device"] = runtime->name();
  json["precision"] = arguments.precision;
  json["commit"] = commit();
  json["model"] = config_to_json(arguments.sparse.model);
  print_json(json);
  return 0;
}

}  // namespace

int run_bench(int argc, const char* const* argv) {
  const std::string subject = argc > 1 ? argv[1] : "";
  if (subject == "sparse") return run_sparse(argc - 1, argv + 1);
  if (subject == "--help" || subject == "-h") {
    fmt::print("fathom bench sparse [OPTIONS]   a decoder with gates against the same one dense\n");
    return 0;
  }
  fail(ErrorKind::kUsage, "bench: expected \"sparse\"{}\nsee: fathom bench --help",
       subject.empty() ? "" : fmt::format(", got \"{}\"", subject));
}

}  // namespace fathom::cli
