#include "step/least_work.h"

#include <algorithm>

namespace fathom::bench {
namespace {

/// Bytes that `rows` rows move: so many numbers of each forward, so many backward.
struct RowTraffic {
  WayToRun way;
  double rows = 0;

  double operator()(int64_t forward, int64_t backward) const {
    const int64_t numbers = forward + (way.trains ? backward : 0);
    return rows * static_cast<double>(numbers) * static_cast<double>(c10::elementSize(way.type));
  }
};

void add_swin_stage(LeastWork& work, const SwinConfig& config, int64_t stage, int64_t images, WayToRun way) {
  const int64_t dim = config.stage_dim(stage), side = config.stage_side(stage), rows = images * side * side;
  const int64_t window = std::min(config.window, side), across = (side + window - 1) / window;
  const int64_t places = window * window, padded_rows = images * across * across * places;
  const int64_t blocks = config.depths[static_cast<size_t>(stage)];
  const auto inner = static_cast<int64_t>(static_cast<double>(dim) * config.mlp_ratio);
  work.products.insert(work.products.end(), {{padded_rows, dim, 3 * dim, blocks},
                                             {padded_rows, dim, dim, blocks},
                                             {rows, dim, inner, blocks},
                                             {rows, inner, dim, blocks}});
  const RowTraffic moved{way, static_cast<double>(rows * blocks)};
  const double flops = 4.0 * static_cast<double>(blocks * padded_rows) * static_cast<double>(places * dim);
  work.traffic.push_back({"norms", moved(8 * dim, 8 * dim)});
  work.traffic.push_back({"window_attention", moved(4 * dim, 7 * dim), (way.trains ? 3 : 1) * flops});
  work.traffic.push_back({"gelu", moved(way.trains ? inner : 0, 3 * inner)});
  if (stage + 1 == config.num_stages()) return;
  const int64_t next_side = config.stage_side(stage + 1);
  work.products.push_back({images * next_side * next_side, 4 * dim, 2 * dim});
  work.traffic.push_back({"merging", RowTraffic{way, static_cast<double>(rows)}(2 * dim, 3 * dim)});
}

}  // namespace

LeastWork transformer_work(const LanguageModelConfig& config, int64_t batch, int64_t tokens, bool has_head,
                           WayToRun way) {
  const int64_t rows = batch * tokens, dim = config.dim, layers = config.layers, inner = config.mlp_size();
  const int64_t width = config.heads * config.head_size(),
                kv_width = config.num_kv_heads() * config.head_size();
  const RowTraffic moved{way, static_cast<double>(rows)};
  LeastWork work{.trains = way.trains};
  work.products = {{rows, dim, width + 2 * kv_width, layers},
                   {rows, width, dim, layers},
                   {rows, dim, 2 * inner, layers},
                   {rows, inner, dim, layers}};
  work.attentions = {{batch, config.heads, tokens, config.head_size(), layers}};
  work.traffic = {{"norms", moved((2 * layers + 1) * 4 * dim, (2 * layers + 1) * 4 * dim)},
                  {"rope", moved(layers * 2 * (width + kv_width), layers * 2 * (width + kv_width))},
                  {"swiglu", moved(layers * 3 * inner, layers * 5 * inner)},
                  {"embedding", moved(2 * dim, 3 * dim)}};
  if (!has_head) return work;
  work.products.push_back({rows, dim, config.vocab_size});
  work.traffic.push_back({"loss", moved(config.vocab_size, config.vocab_size)});
  return work;
}

LeastWork swin_work(const SwinConfig& config, int64_t images, WayToRun way) {
  const int64_t side = config.stage_side(0), pixels = 3 * config.patch_size * config.patch_size;
  const int64_t rows = images * side * side;
  LeastWork work{.trains = way.trains};
  work.products = {{rows, pixels, config.dim, 1, false}};
  work.traffic = {
      {"patches", RowTraffic{way, static_cast<double>(rows)}(pixels + 2 * config.dim, 3 * config.dim)}};
  for (int64_t stage = 0; stage < config.num_stages(); ++stage)
    add_swin_stage(work, config, stage, images, way);
  return work;
}

LeastWork optimizer_work(int64_t parameters, at::ScalarType type) {
  // norm: read g; update: read g, w, m, v, write w, m, v
  const double bytes =
      4 + 4 * 4 + 3 * 4 + (type == at::kFloat ? 0 : static_cast<double>(c10::elementSize(type)));
  LeastWork work{.trains = true};
  work.traffic = {{"optimizer", bytes * static_cast<double>(parameters)}};
  return work;
}

}  // namespace fathom::bench
