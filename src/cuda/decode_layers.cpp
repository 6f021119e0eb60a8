// Decoding in one launch: checks, room and registration.
#include "cuda/decode_layers.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>

#include "cuda/registration.h"
#include "cuda/rows_of.h"

namespace fathom::cuda {
namespace {

using Optional = std::optional<at::Tensor>;
constexpr size_t kWeights = 6, kScorerWeights = 5;
/// Parts of a sequence's keys: at most so many, and no more than give every multiprocessor one.
constexpr int64_t kMostSplits = 64;

void name_layers(DecodeArgs& args, at::TensorList weights, at::TensorList scorers, at::TensorList caches,
                 at::TensorList sums, at::IntArrayRef scored, at::TensorList counts,
                 at::IntArrayRef counted) {
  const size_t layers = weights.size() / kWeights;
  FATHOM_CHECK(layers > 0 && layers <= kMaxDecodeLayers && caches.size() == 2 * layers &&
                   scorers.size() == kScorerWeights * scored.size() && sums.size() == scored.size() &&
                   counts.size() == counted.size(),
               "[decode_layers] expected weights and caches of at most {} layers", kMaxDecodeLayers);
  for (size_t i = 0; i < layers; ++i) {
    const auto weight = [&](size_t w) { return weights[i * kWeights + w].const_data_ptr(); };
    args.layers[i] = {.attention_norm = weight(0),
                      .qkv = weight(1),
                      .output = weight(2),
                      .mlp_norm = weight(3),
                      .gate_up = weight(4),
                      .down = weight(5),
                      .keys = caches[2 * i].mutable_data_ptr(),
                      .values = caches[2 * i + 1].mutable_data_ptr()};
  }
  for (size_t i = 0; i < scored.size(); ++i) {
    const auto weight = [&](size_t w) { return scorers[i * kScorerWeights + w].const_data_ptr(); };
    DecodeLayerArgs& layer = args.layers[scored[i]];
    FATHOM_CHECK(sums[i].scalar_type() == at::kFloat && sums[i].is_contiguous() &&
                     sums[i].numel() == args.batch * scorers[i * kScorerWeights + 3].numel(),
                 "[decode_layers] expected dense float32 sums of a gate");
    layer.gate_norm = weight(0);
    layer.project = weight(1);
    layer.shift = weight(2);
    layer.out = weight(3);
    layer.bias = weight(4);
    layer.gate_sum = sums[i].mutable_data_ptr<float>();
  }
  for (size_t i = 0; i < counted.size(); ++i) {
    FATHOM_CHECK(counts[i].scalar_type() == at::kDouble && counts[i].numel() == 3,
                 "[decode_layers] expected three float64 counts of a gate");
    args.layers[counted[i]].counts = counts[i].mutable_data_ptr<double>();
  }
}

at::Tensor decode(at::Tensor& x, at::TensorList weights, at::TensorList scorers, at::TensorList caches,
                  at::TensorList sums, at::IntArrayRef scored, at::Tensor& key_count, at::Tensor& meeting,
                  const Optional& forced, at::TensorList counts, at::IntArrayRef counted,
                  const at::Tensor& cos, const at::Tensor& sin, int64_t heads, int64_t kv_heads,
                  int64_t position, double eps, double gate_eps) {
  const c10::cuda::CUDAGuard guard(x.device());
  const cudaDeviceProp& properties = *at::cuda::getCurrentDeviceProperties();
  const DecodeCard card = {properties.multiProcessorCount,
                           static_cast<int64_t>(properties.sharedMemPerBlockOptin)};
  const ElementType type = check_dense(x, "decode_layers");
  const int64_t batch = x.size(0), layers = static_cast<int64_t>(weights.size() / kWeights);
  const int64_t head_size = caches[0].size(3), splits = card.multiprocessors / (batch * kv_heads);
  DecodeArgs args{.num_layers = static_cast<int>(layers),
                  .batch = static_cast<int>(batch),
                  .dim = static_cast<int>(x.size(1)),
                  .heads = static_cast<int>(heads),
                  .kv_heads = static_cast<int>(kv_heads),
                  .head_size = static_cast<int>(head_size),
                  .inner = static_cast<int>(weights[5].size(1)),
                  .gate_inner = scorers.empty() ? 0 : static_cast<int>(scorers[3].numel()),
                  .capacity = static_cast<int>(caches[0].size(2)),
                  .position = static_cast<int>(position),
                  .most_splits = static_cast<int>(std::clamp<int64_t>(splits, 1, kMostSplits)),
                  .eps = static_cast<float>(eps),
                  .gate_eps = static_cast<float>(gate_eps)};
  name_layers(args, weights, scorers, caches, sums, scored, counts, counted);
  const auto listed = [&](const at::Tensor& t, at::ScalarType expected, int64_t count) {
    return t.scalar_type() == expected && t.is_contiguous() && t.numel() == count && t.device() == x.device();
  };
  FATHOM_CHECK(
      listed(key_count, at::kInt, layers * batch) && meeting.scalar_type() == at::kInt &&
          meeting.numel() >= 2 + batch * kv_heads &&
          (!forced || listed(*forced, at::kBool, layers * batch)) && listed(cos, at::kFloat, head_size / 2) &&
          listed(sin, at::kFloat, head_size / 2) && position < args.capacity && decode_layers_fit(args, card),
      "[decode_layers] expected counts, decisions and angles of {} layers × {} sequences, and room for a "
      "token behind {}",
      layers, batch, position);
  const auto room = [&](at::IntArrayRef sizes, at::ScalarType kind) {
    return at::empty(sizes, x.options().dtype(kind));
  };
  auto active = room({layers, batch}, at::kBool);
  const auto both = room({layers, batch, 2 * std::max(args.gate_inner, 1)}, at::kFloat),
             score = room({layers, batch}, at::kFloat),
             parts = room({batch, heads, args.most_splits, head_size + 2}, at::kFloat),
             turned = room({batch, (heads + 2 * kv_heads) * head_size}, x.scalar_type()),
             attended = room({batch, heads * head_size}, x.scalar_type()),
             gated = room({batch, args.inner}, x.scalar_type());
  args.x = x.mutable_data_ptr();
  args.cos = cos.const_data_ptr<float>();
  args.sin = sin.const_data_ptr<float>();
  args.key_count = key_count.mutable_data_ptr<int32_t>();
  args.forced = forced ? forced->const_data_ptr<bool>() : nullptr;
  args.active = active.mutable_data_ptr<bool>();
  args.both = both.mutable_data_ptr<float>();
  args.score = score.mutable_data_ptr<float>();
  args.turned = turned.mutable_data_ptr();
  args.parts = parts.mutable_data_ptr<float>();
  args.attended = attended.mutable_data_ptr();
  args.gated = gated.mutable_data_ptr();
  args.arrived = reinterpret_cast<unsigned*>(meeting.mutable_data_ptr<int32_t>());
  C10_CUDA_CHECK(launch_decode_layers(type, args, card, stream()));
  return active;
}

}  // namespace

void register_decode_layers(torch::Library& library) {
  library.impl("decode_layers_", decode);
}

}  // namespace fathom::cuda
