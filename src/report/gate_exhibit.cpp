#include "report/gate_exhibit.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <span>

#include "nn/token_gate.h"

namespace fathom {
namespace {

constexpr int kCell = 7;

/// A row of the grid: a box for each token that the layer computed.
std::string draw_row(const std::vector<bool>& kept) {
  std::string svg =
      fmt::format("<svg class=\"kept\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\">",
                  kCell * static_cast<int>(kept.size()), kCell, kCell * static_cast<int>(kept.size()), kCell);
  for (size_t i = 0; i < kept.size(); ++i)
    if (kept[i])
      svg += fmt::format("<rect x=\"{}\" y=\"0\" width=\"{}\" height=\"{}\"/>", kCell * static_cast<int>(i),
                         kCell - 1, kCell);
  return svg + "</svg>";
}

}  // namespace

std::optional<GateExhibit> exhibit_gates(LanguageModel model, const Tokenizer& tokenizer,
                                         const std::string& text, const EvaluateOptions& evaluate,
                                         int64_t most_tokens) {
  std::vector<int32_t> ids = tokenizer.encode(text);
  ids.resize(std::min(
      {ids.size(), static_cast<size_t>(most_tokens), static_cast<size_t>(model->config().max_positions)}));
  if (ids.empty() || gates_of(*model).empty()) return std::nullopt;
  const torch::NoGradGuard no_grad;
  model->eval();
  GateTrace trace;
  const auto tokens_1T = torch::tensor(std::vector<int64_t>(ids.begin(), ids.end())).unsqueeze(0);
  model->hidden(tokens_1T.to(evaluate.device), {},
                {.compute_dtype = evaluate.compute_dtype, .gate_trace = &trace});
  if (trace.active_BT.empty()) return std::nullopt;  // run dense
  GateExhibit exhibit;
  for (const int32_t id : ids) exhibit.tokens.push_back(tokenizer.decode(std::span(&id, 1)));
  for (const auto& [layer, active_1T] : trace.active_BT) {
    std::vector<bool>& kept = exhibit.kept.emplace_back();
    const auto row = active_1T[0].to(torch::kCPU).contiguous();
    for (int64_t t = 0; t < row.numel(); ++t) kept.push_back(row.const_data_ptr<bool>()[t]);
  }
  return exhibit;
}

void write_gates(HtmlWriter& page, const GateExhibit& exhibit) {
  page.element("h2", "What each layer computes");
  page.element("p", "The darker a token, the more layers computed it; below, a row a layer, a box a token.",
               {{"class", "note"}});
  page.open("div", {{"class", "card"}}).open("p", {{"class", "gated"}});
  for (size_t t = 0; t < exhibit.tokens.size(); ++t) {
    size_t layers = 0;
    for (const std::vector<bool>& kept : exhibit.kept) layers += kept[t];
    const double share = static_cast<double>(layers) / static_cast<double>(exhibit.kept.size());
    page.element("span", exhibit.tokens[t],
                 {{"style", fmt::format("--share: {:.2f}", share)},
                  {"title", fmt::format("{} of {} layers", layers, exhibit.kept.size())}});
  }
  page.close().open("div", {{"class", "table"}}).open("table");
  for (size_t layer = 0; layer < exhibit.kept.size(); ++layer) {
    const std::vector<bool>& kept = exhibit.kept[layer];
    const auto count = std::count(kept.begin(), kept.end(), true);
    page.open("tr").element("td", fmt::format("layer {}", layer));
    page.element(
        "td", fmt::format("{:.0f} %", 100.0 * static_cast<double>(count) / static_cast<double>(kept.size())));
    page.open("td").raw(draw_row(kept)).close().close();
  }
  page.close().close().close();
}

}  // namespace fathom
