// Gated Swin blocks with weights by formula, and what they learn: whose rows the device counts, or the host.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

#include "formula_weights.h"
#include "gradcheck.h"
#include "lent_once.h"
#include "nn/swin_block.h"

namespace fathom::counted_swin_fixture {

using testing::formula_uniform;
using testing::formula_weight;
using testing::LentOnce;
using testing::relative_error;

/// The gates of a block that is layer 5: of its windows, of its feed-forward layer's tokens.
constexpr int64_t kLayer = 5, kPlaces = (1 << 24) + kLayer, kBatch = 3;

struct Shape {
  int64_t side, window, dim, heads;
  int64_t windows() const { return side / window * (side / window); }
  int64_t places() const { return side * side; }
};

inline SwinBlock block_of(const Shape& shape, GateKind kind, double drop_path = 0, bool qkv_bias = true) {
  SwinBlock block(SwinBlockOptions{.dim = shape.dim,
                                   .heads = shape.heads,
                                   .window = shape.window,
                                   .shifted = shape.side > shape.window,
                                   .qkv_bias = qkv_bias,
                                   .drop_path = drop_path,
                                   .layer = kLayer,
                                   .gate = {.kind = kind, .density = 0.4},
                                   .map_places = shape.places()});
  const torch::NoGradGuard no_grad;
  for (auto& item : block->named_parameters()) {
    item.value().copy_(formula_weight(item.key(), item.value().sizes()));
    if (item.key().ends_with("scorer.out")) item.value().mul_(30);
    if (item.key().ends_with("pooled.up.weight")) item.value().mul_(20);
    if (item.key().ends_with("pooled.up.bias")) item.value().sub_(2);
  }
  for (NamedGate each : gates_of(*block)) each.gate->set_multiplier(at::full({}, 0.5, at::kDouble));
  return block;
}

inline at::Tensor map_of(const Shape& shape) {
  return formula_uniform("map", kBatch * shape.places() * shape.dim)
      .view({kBatch, shape.side, shape.side, shape.dim})
      .mul(3);
}

/// Decisions of all sorts: about half, the same but none of one picture, none, all.
inline std::vector<GateTrace> decisions_of_all_sorts(const Shape& shape) {
  const auto some = [&](const char* name, int64_t count) {
    return formula_uniform(name, kBatch * count).view({kBatch, count}).gt(0);
  };
  const auto windows = some("windows", shape.windows()), tokens = some("tokens", shape.places());
  auto uneven_windows = windows.clone(), uneven_tokens = tokens.clone();
  uneven_windows[1].fill_(false);
  uneven_tokens[0].fill_(false);
  const auto trace = [](const at::Tensor& of_windows, const at::Tensor& of_tokens) {
    return GateTrace{{{kLayer, of_windows}, {kPlaces, of_tokens}}};
  };
  return {trace(windows, tokens), trace(uneven_windows, uneven_tokens),
          trace(at::zeros_like(windows), at::zeros_like(tokens)),
          trace(at::ones_like(windows), at::ones_like(tokens))};
}

/// What a training step makes of a block.
struct Learned {
  at::Tensor y;
  GateTrace trace;
  std::map<std::string, at::Tensor> counts, gradients;  ///< of gates; of parameters and, as "x", of the map
};

inline at::Tensor slope_of(const at::Tensor& x) {
  return formula_uniform("slope", x.numel()).view(x.sizes()).to(x.options());
}

inline Learned learned(SwinBlock block, const at::Tensor& map, const at::Tensor& slope,
                       ForwardContext context, bool counted) {
  Learned found;
  context.gate_trace = &found.trace;
  for (NamedGate each : gates_of(*block)) each.gate->reset_counts();
  const auto x = map.detach().requires_grad_(true);
  std::vector<at::Tensor> leaves = block->parameters();
  leaves.push_back(x);
  found.y = counted ? block->counted(x, context) : block->forward(x, context);
  const auto grads = torch::autograd::grad({(found.y * slope).sum()}, leaves, {}, {}, false, true);
  std::vector<std::string> names = block->named_parameters().keys();
  names.emplace_back("x");
  for (size_t i = 0; i < names.size(); ++i)
    found.gradients[names[i]] = grads[i].defined() ? grads[i] : at::zeros_like(leaves[i]);
  for (NamedGate each : gates_of(*block)) found.counts[each.name] = each.gate->counts().clone();
  return found;
}

inline ForwardContext training(double explore, const GateTrace* forced) {
  return {.training = true,
          .key_B = at::arange(kBatch) * 71,
          .explore = explore,
          .sample_share = 0.25,
          .forced_gates = forced};
}

/// Weights of products where they are to lie, all others as without rooms.
inline void expect_rooms(SwinBlock block, const at::Tensor& x, const at::Tensor& slope,
                         ForwardContext context, SideStream* side, double tolerance, bool counted) {
  const Learned expected = learned(block, x, slope, context, counted);
  LentOnce rooms(side);
  context.rooms = &rooms;
  const Learned got = learned(block, x, slope, context, counted);
  if (side != nullptr) side->join();
  EXPECT_EQ(rooms.count(), 6u);  // of four products and two scorers' projections
  for (const auto& [name, gradient] : expected.gradients)
    EXPECT_LE(relative_error(got.gradients.at(name).cpu(), gradient.cpu()), tolerance) << name;
  for (const char* name :
       {"attention.qkv.weight", "attention.output.weight", "mlp.up.weight", "mlp.down.weight"})
    EXPECT_EQ(got.gradients.at(name).data_ptr(), rooms.place_of(block->named_parameters()[name])) << name;
}

}  // namespace fathom::counted_swin_fixture
