#include "evaluate/language.h"

#include <torch/torch.h>

#include <cmath>
#include <numbers>

#include "base/progress.h"
#include "batch/loader.h"

namespace fathom {

double LanguageReport::bits_per_byte() const {
  return nats / std::numbers::ln2 / static_cast<double>(bytes);
}

double LanguageReport::perplexity() const {
  return std::exp(nats / static_cast<double>(tokens));
}

Json LanguageReport::to_json() const {
  return Json::Object{{"task", "language"},
                      {"bits_per_byte", bits_per_byte()},
                      {"perplexity", perplexity()},
                      {"tokens", tokens},
                      {"bytes", bytes}};
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
  const ForwardContext context{.compute_dtype = options.compute_dtype};
  int64_t done = 0;
  while (auto loaded = loader.next()) {
    const Batch batch = to_device(std::move(*loaded), options.device);
    const int64_t num_inputs = batch.tokens_BT.size(1) - 1;
    const auto input_BT = batch.tokens_BT.slice(1, 0, num_inputs);
    const auto position_T = at::arange(1, num_inputs + 1, batch.length_B.options());
    const auto padded_BT = position_T.unsqueeze(0).ge(batch.length_B.unsqueeze(1));
    const auto target_BT = batch.tokens_BT.slice(1, 1).masked_fill(padded_BT, -1);
    const auto hidden_BTD = model->hidden(input_BT, batch.length_B - 1, context);
    report.nats += total_nats(model, hidden_BTD.flatten(0, 1), target_BT.flatten());
    report.tokens += (batch.length_B - 1).sum().item<int64_t>();
    done += batch.size();
    if (progress) progress->update(done);
  }
  return report;
}

}  // namespace fathom
