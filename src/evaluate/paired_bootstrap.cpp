#include "evaluate/paired_bootstrap.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/random.h"

namespace fathom {
namespace {

constexpr double kTail = 0.025;

/// Percent right by each metric of a result's measure.
std::vector<std::pair<std::string, double>> figures_of(const SampleResult& result) {
  std::vector<std::pair<std::string, double>> figures;
  if (is_ranked(result.measure)) {
    for (const int64_t top : {1, 5, 10})
      figures.emplace_back(result.measure + "_r" + std::to_string(top), result.rank <= top ? 100.0 : 0.0);
  } else {
    figures.emplace_back(is_answer_figure(result.measure) ? result.measure : "accuracy",
                         result.rank == 1 ? 100.0 : 0.0);
  }
  const size_t all = figures.size();
  for (const std::string& group : result.groups)
    for (size_t i = 0; i < all; ++i) figures.emplace_back(figures[i].first + "/" + group, figures[i].second);
  return figures;
}

/// What a cluster adds to a metric's sums.
struct Part {
  double first = 0, second = 0;
  double count = 0;
};
/// By metric, one part a cluster.
using Parts = std::map<std::string, std::vector<Part>>;

/// Errors (kData): `run` was not asked what `like` was.
void require_same(const RunResults& run, const RunResults& like) {
  const auto differ = [&](const auto& how) {
    fail(ErrorKind::kData, "{}: was not asked the same as {}: {}", run.path, like.path, how);
  };
  const auto asked = [](const SampleResult& one) {
    return fmt::format("{} {} is \"{}\"", one.measure, one.sample, one.query);
  };
  const auto grouped = [](const SampleResult& one) {
    return one.groups.empty() ? "no group" : fmt::format("{}", fmt::join(one.groups, ", "));
  };
  if (run.results.size() != like.results.size())
    differ(fmt::format("{} results here, {} there", run.results.size(), like.results.size()));
  for (size_t i = 0; i < like.results.size(); ++i) {
    const SampleResult &ours = run.results[i], &theirs = like.results[i];
    if (ours.measure != theirs.measure || ours.sample != theirs.sample || ours.query != theirs.query)
      differ(fmt::format("{} here, {} there", asked(ours), asked(theirs)));
    if (ours.groups != theirs.groups)
      differ(fmt::format("{} {} is of {} here, of {} there (`fathom eval --group` decides)", ours.measure,
                         ours.sample, grouped(ours), grouped(theirs)));
  }
}

void add_arm(const Arm& arm, const RunResults& like, double Part::*sum,
             const std::map<std::string, size_t>& clusters, Parts& parts) {
  const double share = 1.0 / static_cast<double>(arm.size());
  for (const RunResults& run : arm) {
    require_same(run, like);
    for (size_t i = 0; i < run.results.size(); ++i) {
      const size_t cluster = clusters.at(like.results[i].cluster);
      for (const auto& [metric, value] : figures_of(run.results[i])) {
        std::vector<Part>& of_metric = parts[metric];
        of_metric.resize(clusters.size());
        of_metric[cluster].*sum += share * value;
        if (sum == &Part::first) of_metric[cluster].count += share;
      }
    }
  }
}

double quantile(std::vector<double>& values, double share) {
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(below), values.end());
  const double low = values[below];
  if (below + 1 == values.size()) return low;
  const double high = *std::min_element(values.begin() + static_cast<int64_t>(below) + 1, values.end());
  return low + (place - static_cast<double>(below)) * (high - low);
}

}  // namespace

Json PairedReport::to_json() const {
  Json json = Json::Object{{"clusters", clusters}, {"resamples", options.resamples}, {"seed", options.seed}};
  json["metrics"] = Json::object();
  for (const PairedDifference& one : differences)
    json["metrics"][one.metric] =
        Json::Object{{"first", one.first}, {"second", one.second}, {"difference", one.difference()},
                     {"low", one.low},     {"high", one.high},     {"count", one.count}};
  return json;
}

PairedReport compare_runs(const Arm& first, const Arm& second, const BootstrapOptions& options) {
  FATHOM_CHECK(!first.empty() && !second.empty() && options.resamples > 0,
               "[compare_runs] expected a run in each arm and a number of resamples");
  std::map<std::string, size_t> clusters;
  for (const SampleResult& result : first[0].results) clusters.emplace(result.cluster, clusters.size());
  Parts parts;
  add_arm(first, first[0], &Part::first, clusters, parts);
  add_arm(second, first[0], &Part::second, clusters, parts);

  PairedReport report{.clusters = static_cast<int64_t>(clusters.size()), .options = options};
  for (const auto& [metric, of_cluster] : parts) {
    Part all;
    for (const Part& part : of_cluster) {
      all.first += part.first;
      all.second += part.second;
      all.count += part.count;
    }
    PairedDifference one{.metric = metric,
                         .count = std::llround(all.count),
                         .first = all.first / all.count,
                         .second = all.second / all.count};
    Random random({static_cast<uint64_t>(options.seed)});  // the same clusters for every metric
    std::vector<double> drawn;
    for (int64_t r = 0; r < options.resamples; ++r) {
      double difference = 0, count = 0;
      for (size_t k = 0; k < of_cluster.size(); ++k) {
        const Part& part = of_cluster[static_cast<size_t>(random.below(report.clusters))];
        difference += part.first - part.second;
        count += part.count;
      }
      if (count > 0) drawn.push_back(difference / count);
    }
    one.low = quantile(drawn, kTail);
    one.high = quantile(drawn, 1 - kTail);
    report.differences.push_back(std::move(one));
  }
  return report;
}

}  // namespace fathom
