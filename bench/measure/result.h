// What every bench prints and how it comes to it: rounds in turns, medians with their spread, one JSON line.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace fathom::bench {

/// {"bench", "hardware", "commit"}.
Json new_line(const std::string& bench, const std::string& hardware);
std::string processor_name();
/// Prints it on standard output, at once.
void print_line(const Json& line);

double quantile(std::vector<double> values, double share);
double median(std::vector<double> values);
/// theirs ÷ ours, round by round: above 1 where ours is faster.
std::vector<double> ratios(const std::vector<double>& theirs, const std::vector<double>& ours);
/// NAME, and NAME_10_percent and NAME_90_percent of the rounds.
void add_spread(Json& line, const std::string& name, const std::vector<double>& values);

/// Whoever takes part in the rounds: `round` gives what one round took.
struct Contender {
  std::string name;
  std::function<double()> round;
};

struct RoundCounts {
  int64_t warm_up = 1;  ///< first rounds that do not count
  int64_t counted = 7;
};

/// Lets all contenders do one round after the other: what each took, by name.
std::map<std::string, std::vector<double>> take_turns(const std::vector<Contender>& contenders,
                                                      RoundCounts counts);

/// CPU seconds of this process.
double cpu_seconds();
double wall_seconds();

}  // namespace fathom::bench
