#include "train/stand_in_prompt.h"

#include <torch/torch.h>

namespace fathom {

void randomise(KeyValueCache& cache, const LanguageModelConfig& model) {
  const torch::NoGradGuard no_grad;
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    auto [keys, values] = cache.room(layer);
    keys.normal_();
    values.normal_();
  }
}

void stand_behind(KeyValueCache& cache, const LanguageModelConfig& model, const StandInPrompt& prompt) {
  cache.reset();
  const auto options = torch::dtype(torch::kInt).device(cache.room(0).first.device());
  const at::Tensor start_S1 = torch::arange(prompt.batch + 1, options) * prompt.keys;
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    cache.filled(layer, start_S1);
    if (model.gate.has_weights() && model.gate.gates_layer(layer))
      cache.gate_sum(layer) =
          torch::zeros({prompt.batch, 1, model.gate.inner_of(model.dim)}, options.dtype(torch::kFloat));
  }
  cache.advance(prompt.tokens);
}

}  // namespace fathom
