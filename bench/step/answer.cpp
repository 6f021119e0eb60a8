#include "step/answer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "measure/result.h"
#include "measure/roofline.h"

namespace fathom::bench {
namespace {

constexpr double kLeastRoundSeconds = 0.3;
constexpr int64_t kMostRuns = 200;  ///< of a round

using Times = std::map<std::string, std::vector<double>>;

Subject make_subject(const Question& question, at::Device device) {
  if (question.model == "decoder") return make_decoder(question, device);
  return question.model == "swin" ? make_swin(question, device) : make_dual(question, device);
}

/// Our side of the rounds.
class Ours {
 public:
  Ours(DeviceRuntime& runtime, std::function<void()> run) : runtime_(runtime), run_(std::move(run)) {
    run_();
    run_();
    const double seconds = 1e-3 * ms_of(1, run_);
    runs_ = std::clamp<int64_t>(std::llround(std::ceil(kLeastRoundSeconds / seconds)), 1, kMostRuns);
    runtime_.release_cached_memory();
  }

  /// Milliseconds of a run, recorded where that can be. Keeps no memory beside what lasts between steps.
  double round() {
    run_();
    double ms = ms_of(runs_, run_);
    launched_ms_.push_back(ms);
    if (std::unique_ptr<DeviceGraph> graph = runtime_.make_graph()) {
      launch_ms_.push_back(launch_ms());
      runtime_.release_cached_memory();
      graph->capture(run_);
      graph->replay();
      ms = ms_of(runs_, [&] { graph->replay(); });
      graph.reset();
      runtime_.release_cached_memory();
    }
    return ms;
  }
  int64_t runs() const { return runs_; }

  /// What the host costs, where a step can also be recorded.
  void add_host_share(Json& line, double recorded_ms) const {
    if (launch_ms_.empty()) return;
    line["launched_ms"] = median(launched_ms_);
    line["launch_ms"] = median(launch_ms_);
    line["host_share"] = 1 - recorded_ms / median(launched_ms_);
  }

 private:
  double ms_of(int64_t runs, const std::function<void()>& work) {
    const double start = clock_seconds(runtime_);
    for (int64_t i = 0; i < runs; ++i) work();
    return 1e3 * (clock_seconds(runtime_) - start) / static_cast<double>(runs);
  }
  /// Until the host has given a run to an idle device.
  double launch_ms() {
    runtime_.synchronize();
    const double start = wall_seconds();
    run_();
    return 1e3 * (wall_seconds() - start);
  }

  DeviceRuntime& runtime_;
  std::function<void()> run_;
  int64_t runs_ = 1;
  std::vector<double> launched_ms_, launch_ms_;
};

Json described(const Question& question, const Subject& subject) {
  Json line = Json::object();
  line["model"] = question.model;
  line["work"] = question.work;
  line["precision"] = question.precision;
  line["shape"] = fmt::format("{}", fmt::join(question.shape, "x"));
  for (const auto& [name, value] : subject.sizes.as_object()) line[name] = value;
  if (question.shape.size() == 4) line["tokens"] = question.shape[2];
  line["batch"] = question.shape.back();
  return line;
}

/// What the peer chose of its ways: {"eager": NAME, "compile": NAME} without what failed; empty without a
/// peer.
Json prepared_ways(Json spec, const DeviceRuntime& runtime, const Conditions& conditions, int64_t runs) {
  if (conditions.peer == nullptr) return Json::object();
  spec["device"] = runtime.device().str();
  spec["threads"] = conditions.threads;
  spec["steps"] = runs;
  const std::string precision = spec.at("precision").as_string();
  if (precision == "fp8" || precision == "fp16_bf16") spec["precision"] = "bf16";  // what the peer has
  const Json answer = parse_json(conditions.peer->ask("prepare " + spec.dump()), "the peer");
  Json ways = Json::object();
  for (const auto& [name, way] : answer.as_object())
    if (!way.is_null()) ways[name] = way;
  return ways;
}

Times take_rounds(Ours& ours, const Json& ways, const Conditions& conditions) {
  std::vector<Contender> contenders = {{"ours", [&] { return ours.round(); }}};
  for (const auto& [name, way] : ways.as_object())
    contenders.push_back({name, [&, name = name] { return std::stod(conditions.peer->ask(name)); }});
  return take_turns(contenders, {.counted = conditions.rounds});
}

void add_ratios(Json& line, const Times& times, const Json& ways) {
  for (const auto& [name, way] : ways.as_object()) {
    line[name + "_way"] = way;
    line[name + "_ms"] = median(times.at(name));
    add_spread(line, "ratio_" + name, ratios(times.at(name), times.at("ours")));
  }
}

void add_limit(Json& line, const Subject& subject, Roofline& roofline, double ms) {
  Json parts = Json::object();
  double limit = 0;
  for (const auto& [name, part_ms] : roofline.limit_ms(subject.least)) {
    parts[name + "_ms"] = part_ms;
    limit += part_ms;
  }
  line["tflop"] = 1e-12 * subject.flops;
  line["gemm_tflop_per_second"] = 1e-12 * roofline.gemm_rate();
  line["gigabytes_per_second"] = 1e-9 * roofline.bandwidth();
  line["gemm_share"] = subject.flops / (1e-3 * ms) / roofline.gemm_rate();
  line["limit_ms"] = limit;
  line["limit_share"] = limit / ms;
  line["limit"] = parts;
}

}  // namespace

Json answer(const Question& question, DeviceRuntime& runtime, const Conditions& conditions) {
  const Subject subject = make_subject(question, runtime.device());
  const Json description = described(question, subject);
  Ours ours(runtime, subject.run);
  const Json ways = prepared_ways(description, runtime, conditions, ours.runs());
  const Times times = take_rounds(ours, ways, conditions);
  const double ms = median(times.at("ours"));
  Json line = new_line("step", runtime.name());
  for (const auto& [name, value] : description.as_object()) line[name] = value;
  if (runtime.device().is_cpu()) line["threads"] = conditions.threads;
  add_spread(line, "ms", times.at("ours"));
  ours.add_host_share(line, ms);
  add_ratios(line, times, ways);
  Roofline roofline(runtime, question.type());
  add_limit(line, subject, roofline, ms);
  line["rounds"] = conditions.rounds;
  return line;
}

}  // namespace fathom::bench
