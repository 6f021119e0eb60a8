// Two convolutions over time, as spectrograms enter a transformer. Source: Radford et al., "Robust speech
// recognition via large-scale weak supervision", ICML 2023, section 2.2. B batch, F channels in, S frames, G
// groups, D width, T tokens.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/forward_context.h"
#include "nn/init.h"

namespace fathom {

struct SpectrogramStemOptions {
  int64_t channels = 80;
  int64_t dim = 0;     ///< width of each group's output
  int64_t groups = 1;  ///< parts of the channels that never meet, each with weights of its own
  int64_t stride = 2;  ///< of the second convolution
};

/// GELU(conv(GELU(conv(x)))), both three frames wide, the second with a stride. Frames behind a clip's end
/// are zeros before either, so padding changes nothing.
class SpectrogramStemImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit SpectrogramStemImpl(const SpectrogramStemOptions& options);
  /// [B, F, S] → [B, G, T, D], T = ⌈S ÷ stride⌉. `frames_B`: frames of each clip, or undefined: all.
  at::Tensor forward(const at::Tensor& x_BFS, const at::Tensor& frames_B,
                     const ForwardContext& context = {}) const;
  /// ⌈frames ÷ stride⌉.
  int64_t num_tokens(int64_t frames) const;
  at::Tensor num_tokens(const at::Tensor& frames_B) const;
  void initialise(ParameterInit& init) const override;

 private:
  SpectrogramStemOptions options_;
  at::Tensor first_weight_;   ///< [G·D, F/G, 3]
  at::Tensor first_bias_;     ///< [G·D]
  at::Tensor second_weight_;  ///< [G·D, D, 3]
  at::Tensor second_bias_;
};
TORCH_MODULE(SpectrogramStem);

}  // namespace fathom
