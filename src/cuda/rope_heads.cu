// Rotary positions: memory-bound. A thread turns a vector of a head's first half against that of its second
// and takes both from the packed projections to the heads' own tensors, or their gradients back.
#include "cuda/rope_heads.h"

#include "cuda/awaited.cuh"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, int kWidth, bool kBack>
__global__ void __launch_bounds__(kThreads) rope_heads_kernel(Awaited<RopeHeadsArgs> awaited) {
  const RopeHeadsArgs& args = awaited.get();
  using Vector = Elements<T, kWidth>;
  const auto pairs = static_cast<unsigned>(args.head_size / 2 / kWidth);
  const auto queries = static_cast<unsigned>(args.heads), keys = static_cast<unsigned>(args.kv_heads);
  const unsigned slots = queries + 2 * keys;
  const RowItem item = row_item(slots * pairs);
  if (item.row >= args.rows) return;
  const unsigned slot = item.column / pairs, pair = item.column % pairs;
  const unsigned tokens = static_cast<unsigned>(args.tokens), row = static_cast<unsigned>(item.row);
  const unsigned batch = row / tokens, token = row % tokens;

  const bool is_query = slot < queries, turns = slot < queries + keys;
  const HeadsPlace& place = is_query ? args.q : turns ? args.k : args.v;
  const unsigned head = is_query ? slot : turns ? slot - queries : slot - queries - keys;
  const auto vectors_of = [&](const HeadsPlace& heads) {
    return reinterpret_cast<Vector*>(static_cast<T*>(heads.data) + batch * heads.batch_stride +
                                     head * heads.head_stride + token * heads.token_stride) +
           pair;
  };
  Vector* apart = vectors_of(place);
  auto* packed = static_cast<Vector*>(args.packed) + (item.row * slots + slot) * 2 * pairs + pair;
  const Vector* from = kBack ? apart : packed;
  Vector* to = kBack ? packed : apart;

  Vector low = from[0], high = from[pairs];
  if (turns) {
    using Angles = Elements<float, kWidth>;
    const int64_t angle = int64_t{token} * pairs + pair;
    const Angles cos = reinterpret_cast<const Angles*>(args.cos)[angle],
                 sin = reinterpret_cast<const Angles*>(args.sin)[angle];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const Computed<T> x = widened(low.values[i]), y = widened(high.values[i]);
      const Computed<T> c = cos.values[i], s = kBack ? -sin.values[i] : sin.values[i];
      low.values[i] = narrowed<T>(x * c - y * s);
      high.values[i] = narrowed<T>(y * c + x * s);
    }
  }
  to[0] = low;
  to[pairs] = high;
  if constexpr (!kBack) {
    const HeadsPlace& kept = turns ? args.kept_k : args.kept_v;
    if (is_query || kept.data == nullptr) return;
    Vector* copy = vectors_of(kept);
    copy[0] = low;
    copy[pairs] = high;
  }
}

bool takes_vectors(const HeadsPlace& place, int64_t width) {
  return are_aligned16({place.data}) && place.batch_stride % width == 0 && place.head_stride % width == 0 &&
         place.token_stride % width == 0;
}

template <bool kBack>
cudaError_t launch(ElementType type, const RopeHeadsArgs& args, cudaStream_t stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = Vector16<T>::kWidth;
    const int64_t pairs = args.rows * (args.heads + 2 * args.kv_heads) * (args.head_size / 2);
    if (args.head_size / 2 % kWidth == 0 && are_aligned16({args.packed, args.cos, args.sin}) &&
        takes_vectors(args.q, kWidth) && takes_vectors(args.k, kWidth) && takes_vectors(args.v, kWidth) &&
        takes_vectors(args.kept_k, kWidth) && takes_vectors(args.kept_v, kWidth))
      launch_awaiting(rope_heads_kernel<T, kWidth, kBack>, item_blocks(pairs / kWidth, kThreads), kThreads, 0,
                      stream, args);
    else
      launch_awaiting(rope_heads_kernel<T, 1, kBack>, item_blocks(pairs, kThreads), kThreads, 0, stream,
                      args);
    return cudaGetLastError();
  });
}

}  // namespace

cudaError_t launch_rope_heads(ElementType type, const RopeHeadsArgs& args, cudaStream_t stream) {
  return launch<false>(type, args, stream);
}

cudaError_t launch_rope_heads_grad(ElementType type, const RopeHeadsArgs& args, cudaStream_t stream) {
  return launch<true>(type, args, stream);
}

}  // namespace fathom::cuda
