#include "measure/result.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>

#include "base/version.h"
#include "tensor/device_runtime.h"

namespace fathom::bench {

Json new_line(const std::string& bench, const std::string& hardware) {
  Json line = Json::object();
  line["bench"] = bench;
  line["hardware"] = hardware;
  line["commit"] = commit();
  return line;
}

std::string processor_name() {
  return make_device_runtime(at::kCPU)->name();
}

void print_line(const Json& line) {
  fmt::print("{}\n", line.dump());
  std::fflush(stdout);
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values.at(static_cast<size_t>(share * static_cast<double>(values.size() - 1)));
}

double median(std::vector<double> values) {
  return quantile(std::move(values), 0.5);
}

std::vector<double> ratios(const std::vector<double>& theirs, const std::vector<double>& ours) {
  std::vector<double> result;
  for (size_t i = 0; i < theirs.size(); ++i) result.push_back(theirs[i] / ours.at(i));
  return result;
}

void add_spread(Json& line, const std::string& name, const std::vector<double>& values) {
  line[name] = median(values);
  line[name + "_10_percent"] = quantile(values, 0.1);
  line[name + "_90_percent"] = quantile(values, 0.9);
}

std::map<std::string, std::vector<double>> take_turns(const std::vector<Contender>& contenders,
                                                      RoundCounts counts) {
  std::map<std::string, std::vector<double>> times;
  for (int64_t round = -counts.warm_up; round < counts.counted; ++round)
    for (const Contender& contender : contenders) {
      const double time = contender.round();
      if (round >= 0) times[contender.name].push_back(time);
    }
  return times;
}

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace fathom::bench
