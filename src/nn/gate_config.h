// Which tokens a layer computes: the part of a model's shape that says so.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/config.h"

namespace fathom {

enum class GateKind {
  kNone,       ///< every layer computes every token
  kCausal,     ///< learned, from a token and the mean of those before it
  kToken,      ///< learned, from a token and the mean of all
  kPooled,     ///< learned, from the mean of all tokens alone, a score for each place
  kRandom,     ///< drawn: what learning is compared with
  kAlternate,  ///< whole layers, evenly spread: likewise
  kTopK,       ///< Mixture-of-Depths: the highest scores of a sequence, foretold causally after training
};

enum class GatedPart { kBlock, kAttention, kMlp };

struct GateConfig {
  GateKind kind = GateKind::kNone;
  GatedPart part = GatedPart::kBlock;
  double density = 0.5;  ///< share of a gated layer's work that is done
  /// One a layer, 1 for a layer without a gate; empty: `density` is that of all, shares are learned.
  std::vector<double> layer_density;
  int64_t inner = 0;  ///< width of the scorer's bottleneck; 0: an eighth of the model's

  /// Whether a layer has a gate: one that is to compute everything needs none.
  bool gates_layer(int64_t layer) const { return kind != GateKind::kNone && density_of(layer) < 1; }
  /// Whether any layer has one.
  bool gates() const;
  /// Whether scores are learned by the gradient through them and held at the density by a controller.
  bool learns() const {
    return kind == GateKind::kCausal || kind == GateKind::kToken || kind == GateKind::kPooled;
  }
  /// Whether gates have parameters.
  bool has_weights() const { return learns() || kind == GateKind::kTopK; }
  /// Whether a model of this shape has such parameters.
  bool adds_weights() const { return gates() && has_weights(); }
  /// Whether a token's decision depends on no later one.
  bool is_causal() const { return kind != GateKind::kToken && kind != GateKind::kPooled; }
  double density_of(int64_t layer) const {
    return layer_density.empty() ? density : layer_density.at(static_cast<size_t>(layer));
  }

  /// Shares of a layer's tokens that its two parts compute, on target.
  double attention_share(int64_t layer) const {
    return gates_layer(layer) && part != GatedPart::kMlp ? density_of(layer) : 1.0;
  }
  double mlp_share(int64_t layer) const {
    return gates_layer(layer) && part != GatedPart::kAttention ? density_of(layer) : 1.0;
  }
  int64_t inner_of(int64_t dim) const { return inner > 0 ? inner : std::max<int64_t>(8, dim / 8); }

  /// Parameters of one gate of a layer of width `dim` over at most `places`.
  int64_t parameter_count(int64_t layer, int64_t dim, int64_t places) const;
  /// Weights that a layer's gate multiplies each token with (GateKind::kPooled: none, it sees their mean
  /// alone).
  int64_t products_a_token(int64_t layer, int64_t dim) const;

  void fields(Fields& f);
  /// Errors (kConfig): shares outside (0, 1].
  void validate() const;
  /// Errors (kConfig): densities for another number of layers.
  void check_layers(int64_t layers) const;
};

const char* gate_kind_name(GateKind kind);  ///< "causal", …: as in recipes

}  // namespace fathom
