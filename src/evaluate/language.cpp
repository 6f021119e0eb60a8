#include "evaluate/language.h"

#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <numbers>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "batch/loader.h"
#include "evaluate/model_inputs.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

Json figures_json(const LanguageReport& report) {
  Json json = Json::Object{{"bits_per_byte", report.bits_per_byte()},
                           {"perplexity", report.perplexity()},
                           {"tokens", report.tokens},
                           {"bytes", report.bytes}};
  if (report.density) json["density"] = *report.density;
  return json;
}

/// The last `num_parts` parts of a whole path; with 0, the last one without its extension.
std::string end_of_path(const fs::path& path, int64_t num_parts) {
  if (num_parts == 0) return path.stem().string();
  fs::path parent = path, end;
  for (; num_parts > 0 && parent.has_relative_path(); --num_parts, parent = parent.parent_path())
    end = end.empty() ? parent.filename() : parent.filename() / end;
  return end.string();
}

}  // namespace

double LanguageReport::bits_per_byte() const {
  return nats / std::numbers::ln2 / static_cast<double>(bytes);
}

double LanguageReport::perplexity() const {
  return std::exp(nats / static_cast<double>(tokens));
}

Json LanguageReport::to_json() const {
  Json json = figures_json(*this);
  Json::Object& members = json.as_object();
  members.insert(members.begin(), {"task", "language"});
  return json;
}

LanguageReport LanguageReports::all() const {
  LanguageReport all;
  for (const auto& [name, report] : files) {
    if (report.density)
      all.density = (all.density.value_or(0) * static_cast<double>(all.tokens) +
                     *report.density * static_cast<double>(report.tokens)) /
                    static_cast<double>(all.tokens + report.tokens);
    all.nats += report.nats;
    all.tokens += report.tokens;
    all.bytes += report.bytes;
  }
  return all;
}

Json LanguageReports::to_json() const {
  Json json = all().to_json();
  if (files.size() < 2) return json;
  for (const auto& [name, report] : files) json["files"][name] = figures_json(report);
  return json;
}

std::vector<std::string> text_names(const std::vector<std::string>& paths) {
  std::map<fs::path, std::string> given;
  for (const std::string& path : paths)
    if (const auto [former, is_new] = given.try_emplace(absolute_path(path), path); !is_new)
      fail(ErrorKind::kConfig, "{} and {} are the same text", former->second, path);
  std::vector<std::string> names;
  for (int64_t num_parts = 0;; ++num_parts) {
    names.clear();
    for (const std::string& path : paths) names.push_back(end_of_path(absolute_path(path), num_parts));
    if (std::set<std::string>(names.begin(), names.end()).size() == names.size()) return names;
  }
}

NamedWindows open_texts(const std::vector<std::string>& paths, const Tokenizer& tokenizer,
                        int64_t num_tokens) {
  NamedWindows texts;
  const std::vector<std::string> names = text_names(paths);
  for (size_t i = 0; i < paths.size(); ++i) {
    std::vector<TokenFile> files;
    files.push_back(TokenFile::open(paths[i], tokenizer));
    texts[names[i]] =
        std::make_shared<const TokenWindowSource>(std::move(files), num_tokens, Phase::kEvaluate,
                                                  /*seed=*/0, tokenizer.start_of_text().value_or(0));
  }
  return texts;
}

LanguageReports evaluate_language(const LanguageModel& model, const NamedWindows& texts,
                                  const EvaluateOptions& options) {
  LanguageReports reports;
  for (const auto& [name, windows] : texts) reports.files[name] = evaluate_language(model, windows, options);
  return reports;
}

at::Tensor padded_lengths(const at::Tensor& length_B, int64_t tokens) {
  return length_B.eq(tokens).all().item<bool>() ? at::Tensor() : length_B;
}

double total_nats(const LanguageModel& model, const at::Tensor& hidden_ND, const at::Tensor& target_N,
                  int64_t chunk) {
  auto total = at::zeros({}, hidden_ND.options().dtype(at::kDouble));
  for (int64_t start = 0; start < hidden_ND.size(0); start += chunk) {
    const auto target = target_N.slice(0, start, start + chunk);
    const auto logits = model->logits(hidden_ND.slice(0, start, start + chunk)).to(at::kFloat);
    const auto losses = at::cross_entropy_loss(logits, target, {}, at::Reduction::None, /*ignore_index=*/-1);
    total += losses.sum(at::kDouble);
  }
  return total.item<double>();
}

LanguageReport evaluate_language(LanguageModel model, std::shared_ptr<const TokenWindowSource> windows,
                                 const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  model->eval();
  LanguageReport report{.bytes = windows->text_bytes()};
  Loader loader(one_pass(windows, options.batch_size, options.workers));
  std::optional<Progress> progress;
  if (options.show_progress) progress.emplace("windows", windows->size());
  const ForwardContext context = options.context();
  for (auto [name, gate] : gates_of(*model)) gate->reset_counts();
  int64_t done = 0;
  while (auto loaded = loader.next()) {
    require_known_tokens(loaded->tokens_BT, model->config().vocab_size);
    const int64_t num_inputs = loaded->tokens_BT.size(1) - 1;
    auto input_length_B = padded_lengths(loaded->length_B - 1, num_inputs);
    if (input_length_B.defined()) input_length_B = input_length_B.to(options.device);
    const Batch batch = to_device(std::move(*loaded), options.device);
    const auto input_BT = batch.tokens_BT.slice(1, 0, num_inputs);
    const auto position_T = at::arange(1, num_inputs + 1, batch.length_B.options());
    const auto padded_BT = position_T.unsqueeze(0).ge(batch.length_B.unsqueeze(1));
    const auto target_BT = batch.tokens_BT.slice(1, 1).masked_fill(padded_BT, -1);
    const auto hidden_BTD = model->hidden(input_BT, input_length_B, context);
    report.nats += total_nats(model, hidden_BTD.flatten(0, 1), target_BT.flatten());
    report.tokens += (batch.length_B - 1).sum().item<int64_t>();
    done += batch.size();
    if (progress) progress->update(done);
  }
  report.density = activated_share(*model);
  return report;
}

}  // namespace fathom
