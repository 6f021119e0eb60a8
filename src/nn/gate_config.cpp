#include "nn/gate_config.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace fathom {
namespace {

constexpr std::array<std::pair<const char*, GateKind>, 7> kKinds = {{{"none", GateKind::kNone},
                                                                     {"causal", GateKind::kCausal},
                                                                     {"token", GateKind::kToken},
                                                                     {"pooled", GateKind::kPooled},
                                                                     {"random", GateKind::kRandom},
                                                                     {"alternate", GateKind::kAlternate},
                                                                     {"top_k", GateKind::kTopK}}};

}  // namespace

void GateConfig::fields(Fields& f) {
  f.choice(
      "kind", kind,
      "how a layer chooses the tokens that it computes: learned from a token and those before it "
      "(causal), and all (token), from the mean of all (pooled); for comparison at random, whole layers, "
      "or Mixture-of-Depths (top_k)",
      {{"none", GateKind::kNone},
       {"causal", GateKind::kCausal},
       {"token", GateKind::kToken},
       {"pooled", GateKind::kPooled},
       {"random", GateKind::kRandom},
       {"alternate", GateKind::kAlternate},
       {"top_k", GateKind::kTopK}});
  f.choice("part", part, "what a token that is not chosen goes without",
           {{"block", GatedPart::kBlock}, {"attention", GatedPart::kAttention}, {"mlp", GatedPart::kMlp}});
  f("density", density, "share of the gated layers' work that is to be done (1: no gates)",
    {.low = 0.01, .high = 1});
  f("layer_density", layer_density,
    "the same for each layer (1: no gate); empty: how layers share it is learned", {.low = 0.01, .high = 1});
  f("inner", inner, "width of the scorer's bottleneck (0: an eighth of the model's)",
    {.low = 0, .high = 1 << 14});
}

bool GateConfig::gates() const {
  if (kind == GateKind::kNone) return false;
  return layer_density.empty() ? density < 1
                               : std::any_of(layer_density.begin(), layer_density.end(),
                                             [](double share) { return share < 1; });
}

int64_t GateConfig::products_a_token(int64_t layer, int64_t dim) const {
  if (!gates_layer(layer) || !has_weights() || kind == GateKind::kPooled) return 0;
  return 2 * dim * inner_of(dim) + (kind == GateKind::kTopK ? dim : 0);
}

int64_t GateConfig::parameter_count(int64_t layer, int64_t dim, int64_t places) const {
  if (!gates_layer(layer) || !has_weights()) return 0;
  if (kind == GateKind::kPooled) {
    const int64_t narrow = std::max<int64_t>(1, places / 8);
    return dim + dim * narrow + narrow + narrow * places + places;
  }
  return dim + products_a_token(layer, dim) + 3 * inner_of(dim) + 1 + (kind == GateKind::kTopK ? 1 : 0);
}

void GateConfig::validate() const {
  if (kind == GateKind::kNone && !layer_density.empty())
    fail(ErrorKind::kConfig, "layer_density is given, but kind = \"none\" gates no layer");
}

void GateConfig::check_layers(int64_t layers) const {
  if (!layer_density.empty() && static_cast<int64_t>(layer_density.size()) != layers)
    fail(ErrorKind::kConfig, "gate.layer_density has {} values for {} layers", layer_density.size(), layers);
}

const char* gate_kind_name(GateKind kind) {
  return kKinds[static_cast<size_t>(kind)].first;
}

}  // namespace fathom
