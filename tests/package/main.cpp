// A small model of somebody else's, from the installed headers: random weights, one forward pass.
#include <torch/torch.h>

#include <cstdio>

#include "base/version.h"
#include "models/language/model.h"
#include "nn/init.h"

int main() {
  fathom::LanguageModel model(
      fathom::LanguageModelConfig{.vocab_size = 16, .dim = 8, .layers = 1, .heads = 2});
  fathom::init_parameters(*model, 1);
  const at::Tensor logits = model->forward(torch::zeros({1, 3}, torch::kLong));
  std::printf("Fathom %s: logits of %lld tokens over %lld ids\n", fathom::version(),
              static_cast<long long>(logits.size(1)), static_cast<long long>(logits.size(2)));
  return logits.size(2) == 16 && logits.isfinite().all().item<bool>() ? 0 : 1;
}
