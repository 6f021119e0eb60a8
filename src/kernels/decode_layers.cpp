#include "kernels/decode_layers.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

constexpr int64_t kMostSequences = 64, kMostLayers = 96;
constexpr int64_t kMostNormedBytes = 160 << 10;  ///< of shared memory, for all sequences' states

std::vector<at::Tensor> layer_weights(const DecodeLayer& layer) {
  const CountedWeights& w = layer.weights;
  return {w.attention_norm, w.qkv, w.output, w.mlp_norm, w.gate_up, w.down};
}

std::vector<at::Tensor> scorer_weights(const TokenScorerWeights& w) {
  return {w.norm, w.project, w.behind.shift, w.behind.out, w.behind.bias};
}

bool fits_layer(const at::Tensor& x_BD, const DecodeLayer& layer) {
  const auto alike = [&](const at::Tensor& w) {
    return w.scalar_type() == x_BD.scalar_type() && w.device() == x_BD.device() && w.is_contiguous();
  };
  const std::vector<at::Tensor> weights = layer_weights(layer);
  if (!std::all_of(weights.begin(), weights.end(), alike) || !alike(layer.keys) || !alike(layer.values))
    return false;
  if (layer.weights.down.size(1) % 64 != 0) return false;
  if (!layer.scorer) return true;
  const std::vector<at::Tensor> scorer = scorer_weights(*layer.scorer);
  return std::all_of(scorer.begin(), scorer.end(), alike) && layer.scorer->behind.out.numel() % 8 == 0;
}

}  // namespace

bool has_decode_layers(const at::Tensor& x_BD, const DecodeStep& step) {
  const bool half = x_BD.scalar_type() == at::kBFloat16 || x_BD.scalar_type() == at::kHalf;
  if (!x_BD.is_cuda() || !half || step.layers.empty()) return false;
  const int64_t sequences = x_BD.size(0), dim = x_BD.size(1);
  const auto [heads, kv_heads] = step.heads;
  const int64_t group = heads / kv_heads, size = step.layers.front().keys.size(3);
  const bool fits = sequences >= 1 && sequences <= kMostSequences && std::ssize(step.layers) <= kMostLayers &&
                    dim % 64 == 0 && 2 * sequences * (dim + 32) <= kMostNormedBytes &&
                    (size == 64 || size == 128) && heads * size % 64 == 0 && heads == group * kv_heads &&
                    (group == 1 || group == 2 || group == 4 || group == 8);
  return fits &&
         std::all_of(step.layers.begin(), step.layers.end(),
                     [&](const DecodeLayer& layer) { return fits_layer(x_BD, layer); }) &&
         c10::Dispatcher::singleton()
             .findSchemaOrThrow("fathom::decode_layers_", "")
             .hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

std::pair<at::Tensor, at::Tensor> decode_layers(const at::Tensor& x_BD, const DecodeStep& step) {
  using Optional = std::optional<at::Tensor>;
  static const auto op = find_op<at::Tensor(
      at::Tensor&, at::TensorList, at::TensorList, at::TensorList, at::TensorList, at::IntArrayRef,
      at::Tensor&, at::Tensor&, const Optional&, at::TensorList, at::IntArrayRef, const at::Tensor&,
      const at::Tensor&, int64_t, int64_t, int64_t, double, double)>("fathom::decode_layers_");
  at::AutoDispatchBelowADInplaceOrView below;
  std::vector<at::Tensor> weights, scorers, caches, sums, counts;
  std::vector<int64_t> scored, counted;
  for (size_t i = 0; i < step.layers.size(); ++i) {
    const DecodeLayer& layer = step.layers[i];
    std::ranges::move(layer_weights(layer), std::back_inserter(weights));
    caches.insert(caches.end(), {layer.keys, layer.values});
    if (layer.counts.defined()) {
      counts.push_back(layer.counts);
      counted.push_back(static_cast<int64_t>(i));
    }
    if (!layer.scorer) continue;
    std::ranges::move(scorer_weights(*layer.scorer), std::back_inserter(scorers));
    sums.push_back(layer.gate_sum_B1I);
    scored.push_back(static_cast<int64_t>(i));
  }
  at::Tensor y_BD = x_BD.clone(), key_count_LB = step.key_count_LB, meeting = step.meeting;
  auto active_LB = op.call(y_BD, weights, scorers, caches, sums, scored, key_count_LB, meeting,
                           optional(step.forced_LB), counts, counted, step.cos_TF, step.sin_TF,
                           step.heads.heads, step.heads.kv_heads, step.position, step.eps, step.gate_eps);
  return {std::move(y_BD), std::move(active_LB)};
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "decode_layers_(Tensor(a!) x, Tensor[] weights, Tensor[] scorers, Tensor[] caches, Tensor[] sums, "
      "int[] scored, Tensor(b!) key_count, Tensor(c!) meeting, Tensor? forced, Tensor[] counts, "
      "int[] counted, Tensor cos, Tensor sin, int heads, int kv_heads, int position, float eps, "
      "float gate_eps) -> Tensor");
}

}  // namespace fathom::kernels
