#include "train/initial_weights.h"

#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "base/error.h"
#include "base/log.h"
#include "base/name_pattern.h"
#include "models/model_folder.h"

namespace fathom {
namespace {

constexpr size_t kMostNamed = 3;
constexpr const char* kNoPlace = "the model has no such parameter";

std::string target_name(const InitRule& rule, const std::string& name) {
  if (rule.as.empty()) return name;
  const size_t star = rule.take.find('*');
  const std::string middle = name.substr(star, name.size() - (rule.take.size() - 1));
  std::string target = rule.as;
  return target.replace(target.find('*'), 1, middle);
}

std::string shape_text(const at::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.sizes().vec(), ", "));
}

/// Rows of an embedding mean nothing under another vocabulary.
void require_vocabulary(const InitRule& rule, const std::string& target, const std::string& theirs,
                        const std::string& ours) {
  const bool by_token = target.ends_with("embedding") || target.ends_with("head");
  if (by_token && !theirs.empty() && !ours.empty() && theirs != ours)
    fail(ErrorKind::kConfig,
         "init: {} comes from another vocabulary: set tokenizer.path to {}/tokenizer.json, or leave it out",
         target, rule.from);
}

/// "REASON: NAMES" of each reason, a line each.
std::string grouped(const std::vector<InitReport::Left>& left) {
  std::map<std::string, std::vector<std::string>> by_reason;
  for (const InitReport::Left& item : left) by_reason[item.reason].push_back(item.name);
  std::string text;
  for (auto& [reason, names] : by_reason) {
    const size_t count = names.size();
    if (count > kMostNamed) names.resize(kMostNamed);
    text += fmt::format("\n  {}: {}{}", reason, fmt::join(names, ", "),
                        count > kMostNamed ? fmt::format(" and {} more", count - kMostNamed) : "");
  }
  return text;
}

/// `left`: what the rule would take, had it a place.
[[noreturn]] void gives_nothing(const InitRule& rule, std::span<const InitReport::Left> left) {
  if (left.empty())
    fail(ErrorKind::kConfig, "init: {} gives nothing: none of its parameters fits \"{}\"", rule.from,
         rule.take);
  fail(ErrorKind::kConfig, "init: {} gives nothing: {} parameters fit \"{}\", but (of {}) {}", rule.from,
       left.size(), rule.take, left.front().name.substr(rule.from.size() + 2), left.front().reason);
}

/// Runs one rule; returns how many parameters it gave.
int64_t apply(const InitRule& rule, torch::OrderedDict<std::string, at::Tensor>& parameters,
              const std::string& tokenizer_json, InitReport& report, std::set<std::string>& given) {
  LoadedModel source = load_model_folder(rule.from);
  int64_t count = 0;
  for (const auto& item : source.module().named_parameters()) {
    if (!matches(rule.take, item.key())) continue;
    const std::string target = target_name(rule, item.key()), from = rule.from + ": " + item.key();
    at::Tensor* parameter = parameters.find(target);
    if (parameter == nullptr) {
      report.left.push_back({from, kNoPlace});
    } else if (parameter->sizes() != item.value().sizes()) {
      report.left.push_back(
          {from, fmt::format("it is {}, the model's {}", shape_text(item.value()), shape_text(*parameter))});
    } else {
      require_vocabulary(rule, target, source.extras.tokenizer_json, tokenizer_json);
      parameter->copy_(item.value());
      report.loaded.push_back({target, from});
      given.insert(target);
      ++count;
    }
  }
  return count;
}

}  // namespace

void InitRule::fields(Fields& f) {
  f("from", from, "model folder");
  f("take", take, "parameters of that model; * stands for any characters");
  f("as", as, "their names here, where * is what the * of take stands for; empty: the same names");
}

void InitRule::validate() const {
  const auto stars = [](const std::string& pattern) {
    return std::count(pattern.begin(), pattern.end(), '*');
  };
  if (from.empty()) fail(ErrorKind::kConfig, "from: not given");
  if (as.empty()) return;
  const bool plain = take.find_first_of("?[") == std::string::npos;
  if (stars(take) != 1 || stars(as) != 1 || !plain)
    fail(ErrorKind::kConfig, "take = \"{}\" as = \"{}\": each must have one *, and no ? or [", take, as);
}

Json InitReport::to_json() const {
  Json json = Json::Object{{"loaded", Json::array()}, {"left", Json::array()}};
  for (const Loaded& item : loaded)
    json["loaded"].push_back(Json::Object{{"parameter", item.parameter}, {"from", item.from}});
  for (const Left& item : left)
    json["left"].push_back(Json::Object{{"name", item.name}, {"reason", item.reason}});
  return json;
}

std::string InitReport::to_text() const {
  return fmt::format("{} parameters loaded, {} left{}", loaded.size(), left.size(), grouped(left));
}

InitReport take_initial_weights(torch::nn::Module& module, const std::vector<InitRule>& rules,
                                const std::string& tokenizer_json) {
  const torch::NoGradGuard no_grad;
  auto parameters = module.named_parameters();
  InitReport report;
  std::set<std::string> given;
  for (const InitRule& rule : rules) {
    const size_t before = report.left.size();
    const int64_t count = apply(rule, parameters, tokenizer_json, report, given);
    const std::span<const InitReport::Left> left = std::span(report.left).subspan(before);
    if (count == 0) gives_nothing(rule, left);
    if (count < static_cast<int64_t>(left.size()))
      log::warning(
          "init: {} gives {} of the {} parameters that fit \"{}\"; the first that it does not: {}: {}",
          rule.from, count, count + static_cast<int64_t>(left.size()), rule.take, left.front().name,
          left.front().reason);
  }
  for (const auto& item : parameters)
    if (!given.contains(item.key())) report.left.push_back({item.key(), "no rule gives it"});
  return report;
}

void check_initial_names(const torch::nn::Module& module, const std::vector<InitRule>& rules) {
  const auto parameters = module.named_parameters();
  for (const InitRule& rule : rules) {
    std::vector<InitReport::Left> left;
    bool gives = false;
    for (const std::string& name : model_parameter_names(rule.from)) {
      if (!matches(rule.take, name)) continue;
      if (parameters.contains(target_name(rule, name)))
        gives = true;
      else
        left.push_back({rule.from + ": " + name, kNoPlace});
    }
    if (!gives) gives_nothing(rule, left);
  }
}

}  // namespace fathom
