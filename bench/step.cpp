// How long does a training step of a decoder or a dual tower take, and a pass of Swin-T or of a decoder over
// a prompt, beside eager and compiled PyTorch, and how near is that to what the device can do at best?
//
//   bench_step --device cpu|cuda [--model decoder|swin|dual] [--work step|forward] [--shape LxDxTxB]
//       [--precision fp32|bf16|fp16|fp16_bf16|fp8] [--json] [--peer "python3 bench/peers/step.py"]
//
// Shapes are layers, width, tokens, batch; Swin's is the batch alone. Without --model it answers all
// questions of the device, with it the first that fits, at the shape and precision that are given.
// Parameters, moments and gradients of a step are float32. With fp16_bf16, which a GPU has, and fp8, which a
// Hopper GPU has, peer and limit are those of bf16. Ours, eager and compiled PyTorch do their rounds
// in turns; after each round the memory that it needed goes back, since a round may need most of a GPU. `ms`
// is that of a run recorded as one graph, as `training.record_step` does, where the device has graphs,
// `launched_ms` without; `host_share` = 1 − ms ÷ launched_ms. One JSON line a question; docs/performance.md
// says what `limit` is made of.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "measure/peer_process.h"
#include "measure/program.h"
#include "measure/result.h"
#include "step/answer.h"
#include "step/subject.h"
#include "tensor/device.h"

namespace fathom::bench {
namespace {

struct StepOptions {
  std::string device = "auto";
  std::string model, work, shape, precision, peer;
  int64_t vocabulary = 0;  ///< 0: the question's
  int64_t image_side = 224;
  int64_t threads = 1;
  int64_t rounds = 7;
  bool json_only = false;
};

std::vector<Question> questions_of(at::Device device) {
  if (!device.is_cpu())
    return {{"decoder", "step", "bf16", {24, 1024, 2048, 8}, 32000},
            {"swin", "forward", "fp16", {32}},
            {"swin", "forward", "fp16", {1}},
            {"swin", "forward", "fp16", {256}},
            {"dual", "step", "bf16", {12, 512, 64, 1024}, 32000}};
  std::vector<Question> questions;
  for (const char* precision : {"fp32", "bf16"}) {
    questions.push_back({"decoder", "step", precision, {4, 256, 256, 8}, 4096});
    questions.push_back({"decoder", "forward", precision, {8, 512, 512, 4}, 4096});
    questions.push_back({"swin", "forward", precision, {8}});
    questions.push_back({"swin", "step", precision, {8}});
    questions.push_back({"dual", "step", precision, {2, 256, 32, 8}, 4096});
  }
  return questions;
}

std::vector<int64_t> parse_shape(const std::string& text, bool batch_alone) {
  std::vector<int64_t> shape;
  for (const std::string& word : CLI::detail::split(text, 'x')) {
    int64_t size = 0;
    if (!CLI::detail::lexical_cast(word, size) || size < 1) break;
    shape.push_back(size);
  }
  if (shape.size() != (batch_alone ? 1U : 4U) || fmt::format("{}", fmt::join(shape, "x")) != text)
    fail(ErrorKind::kUsage, "--shape {}: expected {}", text,
         batch_alone ? "a batch" : "layers, width, tokens and batch, as in 4x256x256x8");
  return shape;
}

void check(const Question& question) {
  if (question.model == "dual" && !question.trains())
    fail(ErrorKind::kUsage, "--work forward is a question about decoder and swin");
  if (question.model == "decoder" && question.precision == "fp16")
    fail(ErrorKind::kUsage, "--precision fp16 is for passes of swin");
  if (question.trains() && question.precision == "fp16")
    fail(ErrorKind::kUsage, "--precision fp16 is for --work forward");
  if (!question.trains() && (question.precision == "fp8" || question.precision == "fp16_bf16"))
    fail(ErrorKind::kUsage, "--precision {} is for --work step", question.precision);
  if (question.shape.size() == 4 && question.shape[1] >= 64 && question.shape[1] % 64 != 0)
    fail(ErrorKind::kUsage, "--shape: a width of {} cannot be divided into heads of 64", question.shape[1]);
}

/// The first of the device's that fits, or what of it is not asked by default, as the options want it.
Question chosen_question(const StepOptions& options, const std::vector<Question>& questions) {
  const auto found = std::find_if(questions.begin(), questions.end(), [&](const Question& question) {
    return question.model == options.model && (options.work.empty() || question.work == options.work);
  });
  Question question = found != questions.end() ? *found
                      : options.model == "decoder"
                          ? Question{"decoder", "forward", "bf16", {24, 1024, 2048, 4}, 32000}
                          : Question{options.model, options.work, "bf16", {32}};
  if (!options.shape.empty()) question.shape = parse_shape(options.shape, question.model == "swin");
  if (!options.precision.empty()) question.precision = options.precision;
  if (options.vocabulary > 0) question.vocabulary = options.vocabulary;
  question.image_side = options.image_side;
  check(question);
  return question;
}

std::vector<Question> chosen_questions(const StepOptions& options, at::Device device) {
  const std::vector<Question> questions = questions_of(device);
  if (!options.model.empty()) return {chosen_question(options, questions)};
  if (!options.shape.empty() || !options.precision.empty() || !options.work.empty())
    fail(ErrorKind::kUsage, "--shape, --precision and --work want --model beside them");
  return questions;
}

void print_summary(const Json& line) {
  const auto ratio = [&](const char* name) {
    const Json* value = line.find(name);
    return value ? fmt::format("{:.2f} times", value->as_double()) : std::string("not compared");
  };
  const auto text = [&](const char* name) { return line.at(name).as_string(); };
  fmt::print(stderr, "{} {} {} {}: {:.2f} ms, {:.0f} % of the products' rate, {:.0f} % of the limit",
             text("model"), text("work"), text("precision"), text("shape"), line.at("ms").as_double(),
             100 * line.at("gemm_share").as_double(), 100 * line.at("limit_share").as_double());
  fmt::print(stderr, "; eager PyTorch: {}, compiled: {}\n", ratio("ratio_eager"), ratio("ratio_compile"));
}

void add_options(CLI::App& app, StepOptions& options) {
  const CLI::Range at_least_one(1, 1 << 24);
  app.add_option("--device", options.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--model", options.model, "whose step or pass; without it all questions are answered")
      ->check(CLI::IsMember({"decoder", "swin", "dual"}));
  app.add_option(
         "--work", options.work,
         "a training step, or a forward pass (of swin; of decoder up to the logits of the last token)")
      ->check(CLI::IsMember({"step", "forward"}));
  app.add_option("--shape", options.shape, "LxDxTxB: layers, width, tokens, batch; of swin the batch alone");
  app.add_option("--precision", options.precision, "of products and activations")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16", "fp16_bf16", "fp8"}));
  app.add_option("--vocabulary", options.vocabulary, "of the decoder or the text encoder")
      ->check(at_least_one);
  app.add_option("--image-side", options.image_side, "pixels")->check(at_least_one)->capture_default_str();
  app.add_option("--threads", options.threads, "on a CPU; with one, times are CPU times")
      ->check(at_least_one)
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "that count")->check(at_least_one)->capture_default_str();
  app.add_option("--peer", options.peer, "command that runs bench/peers/step.py");
  app.add_flag("--json", options.json_only, "nothing but the JSON line");
}

void run_step(const StepOptions& options) {
  const at::Device device = select_device(options.device);
  const std::vector<Question> questions = chosen_questions(options, device);
  const auto runtime = make_device_runtime(device);
  runtime->activate();
  if (device.is_cpu()) at::set_num_threads(static_cast<int>(options.threads));
  const auto peer = options.peer.empty() ? nullptr : std::make_unique<PeerProcess>(options.peer);
  for (const Question& question : questions) {
    const Json line = answer(question, *runtime,
                             {.peer = peer.get(), .threads = options.threads, .rounds = options.rounds});
    print_line(line);
    if (!options.json_only) print_summary(line);
    runtime->release_cached_memory();
  }
}

}  // namespace
}  // namespace fathom::bench

int main(int argc, char** argv) {
  CLI::App app("Times a model's step or pass beside PyTorch and beside the device's limit.", "bench_step");
  fathom::bench::StepOptions options;
  fathom::bench::add_options(app, options);
  return fathom::bench::run_program(app, argc, argv, [&] { fathom::bench::run_step(options); });
}
