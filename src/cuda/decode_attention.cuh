// Attention of one new token a sequence to the keys that a cache holds: blocks share a sequence's keys, lanes
// share a key, and every group of lanes keeps a softmax of its own until all are joined.
#pragma once

#include <algorithm>

#include "cuda/decode_product.cuh"

namespace fathom::cuda {

constexpr int kMinSplitKeys = 64;
constexpr int kMaxGroup = 8;  ///< heads that share keys

/// A lane's 8 elements of a head of queries or keys, turned to the present position.
template <typename T, int kSize>
__device__ void load_turned(float (&y)[8], const T* head, const DecodeArgs& args, int lane) {
  using Vector = Vector16<T>;
  constexpr int kLanes = kSize / 8;
  const bool is_low = lane < kLanes / 2;
  const int other = is_low ? lane + kLanes / 2 : lane - kLanes / 2;
  const uint4 own_bits = shared_by_blocks(head + lane * 8), other_bits = shared_by_blocks(head + other * 8);
  const Vector own = vector_of<T>(own_bits);
  const Vector partner = vector_of<T>(other_bits);
  const int angle = (is_low ? lane : other) * 8;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float cos = __ldg(args.cos + angle + i), sin = __ldg(args.sin + angle + i);
    const float turn = to_float(partner.values[i]) * sin;
    y[i] = to_float(from_float<T>(to_float(own.values[i]) * cos + (is_low ? -turn : turn)));
  }
}

/// Sums of a softmax as it goes along.
struct Softmax {
  float most = -INFINITY;
  float mass = 0;
  float sum[8] = {};

  __device__ void add(float score, const float (&value)[8]) {
    const float highest = fmaxf(most, score);
    if (highest == -INFINITY) return;
    const float keep = exp2f(most - highest), share = exp2f(score - highest);
    mass = mass * keep + share;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = sum[i] * keep + share * value[i];
    most = highest;
  }
  __device__ void join(float other_most, float other_mass, const float (&other)[8]) {
    const float highest = fmaxf(most, other_most);
    if (highest == -INFINITY) return;
    const float keep = exp2f(most - highest), share = exp2f(other_most - highest);
    mass = mass * keep + other_mass * share;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = sum[i] * keep + other[i] * share;
    most = highest;
  }
};

/// A share of one sequence's keys, for the heads that look at them, at most `kGroup`.
template <typename T, int kSize, int kGroup>
__device__ void attend(const DecodeArgs& args, const DecodeLayerArgs& layer, int sequence, int kv_head,
                       int split, int splits, int held, float* shared) {
  using Vector = Vector16<T>;
  constexpr int kLanes = kSize / 8, kParallel = 32 / kLanes;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, place = lane % kLanes;
  const int group = kGroup == 1 ? 1 : args.heads / args.kv_heads;
  const int width = (args.heads + 2 * args.kv_heads) * kSize;
  const T* turned = static_cast<const T*>(args.turned) + int64_t{sequence} * width;
  const int64_t begin = (int64_t{sequence} * args.kv_heads + kv_head) * args.capacity * kSize + place * 8;
  T* keys = static_cast<T*>(layer.keys) + begin;
  T* values = static_cast<T*>(layer.values) + begin;

  const float scale = rsqrtf(static_cast<float>(kSize)) * 1.44269504f;
  float query[kGroup][8];
#pragma unroll
  for (int h = 0; h < kGroup; ++h) {
    if (h >= group) break;
    load_turned<T, kSize>(query[h], turned + (kv_head * group + h) * kSize, args, place);
#pragma unroll
    for (int i = 0; i < 8; ++i) query[h][i] *= scale;
  }
  Softmax found[kGroup];
  const auto look = [&](const float(&key)[8], const float(&value)[8], bool there) {
#pragma unroll
    for (int h = 0; h < kGroup; ++h) {
      if (h >= group) break;
      float score = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) score += query[h][i] * key[i];
#pragma unroll
      for (int step = 1; step < kLanes; step *= 2) score += __shfl_xor_sync(0xffffffff, score, step);
      found[h].add(there ? score : -INFINITY, value);
    }
  };

  const int share = (held + splits - 1) / splits, first = split * share, last = min(held, first + share);
  constexpr int kStep = kDecodeWarps * kParallel, kAhead = 4;
  for (int base = first + warp * kParallel + lane / kLanes; base - lane / kLanes < last;
       base += kStep * kAhead) {
    uint4 key_bits[kAhead], value_bits[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t at = int64_t{min(base + a * kStep, last - 1)} * kSize;
      key_bits[a] = streamed(keys + at);
      value_bits[a] = streamed(values + at);
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const Vector key_vector = vector_of<T>(key_bits[a]);
      const Vector value_vector = vector_of<T>(value_bits[a]);
      float key[8], value[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        key[i] = to_float(key_vector.values[i]);
        value[i] = to_float(value_vector.values[i]);
      }
      look(key, value, base + a * kStep < last);
    }
  }
  if (split + 1 == splits && warp == 0) {  // the token itself, which is also kept for later ones
    float key[8], value[8];
    const T* new_value = turned + (args.heads + args.kv_heads + kv_head) * kSize + place * 8;
    load_turned<T, kSize>(key, turned + (args.heads + kv_head) * kSize, args, place);
    const uint4 value_bits = shared_by_blocks(new_value);
    const Vector value_vector = vector_of<T>(value_bits);
    Vector key_vector;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      value[i] = to_float(value_vector.values[i]);
      key_vector.values[i] = from_float<T>(key[i]);
    }
    if (lane < kLanes) {
      *reinterpret_cast<Vector*>(keys + int64_t{held} * kSize) = key_vector;
      *reinterpret_cast<uint4*>(values + int64_t{held} * kSize) = value_bits;
    }
    look(key, value, lane < kLanes);
  }

  // Those of a warp's lanes that looked at different keys, then those of the warps.
#pragma unroll
  for (int h = 0; h < kGroup; ++h) {
    if (h >= group) break;
#pragma unroll
    for (int step = kLanes; step < 32; step *= 2) {
      const float most = __shfl_xor_sync(0xffffffff, found[h].most, step);
      const float mass = __shfl_xor_sync(0xffffffff, found[h].mass, step);
      float sum[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] = __shfl_xor_sync(0xffffffff, found[h].sum[i], step);
      found[h].join(most, mass, sum);
    }
    float* own = shared + (warp * group + h) * (kSize + 2);
    if (lane >= kLanes) continue;
    if (lane == 0) {
      own[kSize] = found[h].most;
      own[kSize + 1] = found[h].mass;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) own[place * 8 + i] = found[h].sum[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < group * kSize; i += kDecodeThreads) {
    const int h = i / kSize, e = i % kSize, head = kv_head * group + h;
    float most = -INFINITY, mass = 0, sum = 0;
    for (int w = 0; w < kDecodeWarps; ++w) most = fmaxf(most, shared[(w * group + h) * (kSize + 2) + kSize]);
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float* part = shared + (w * group + h) * (kSize + 2);
      const float weight = most == -INFINITY ? 0 : exp2f(part[kSize] - most);
      mass += part[kSize + 1] * weight;
      sum += part[e] * weight;
    }
    const int64_t row = int64_t{sequence} * args.heads + head;
    if (splits == 1) {
      static_cast<T*>(args.attended)[row * kSize + e] = from_float<T>(sum / mass);
      continue;
    }
    float* kept = args.parts + (row * args.most_splits + split) * (kSize + 2);
    kept[e] = sum;
    if (e == 0) {
      kept[kSize] = most;
      kept[kSize + 1] = mass;
    }
  }
  __syncthreads();
}

/// What the parts of one sequence's keys come to, by the block whose part was the last.
template <typename T, int kSize>
__device__ void join_splits(const DecodeArgs& args, int sequence, int kv_head, int splits) {
  __shared__ bool is_last;
  const int group = args.heads / args.kv_heads;
  unsigned* arrived = args.arrived + 2 + sequence * args.kv_heads + kv_head;
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(arrived, 1u) + 1 == static_cast<unsigned>(splits);
    if (is_last) *arrived = 0;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  for (int i = threadIdx.x; i < group * kSize; i += kDecodeThreads) {
    const int64_t row = int64_t{sequence} * args.heads + kv_head * group + i / kSize;
    const float* parts = args.parts + row * args.most_splits * (kSize + 2);
    float most = -INFINITY, mass = 0, sum = 0;
#pragma unroll 8
    for (int s = 0; s < splits; ++s) most = fmaxf(most, __ldcg(parts + s * (kSize + 2) + kSize));
#pragma unroll 8
    for (int s = 0; s < splits; ++s) {
      const float* part = parts + s * (kSize + 2);
      const float weight = exp2f(__ldcg(part + kSize) - most);
      mass += __ldcg(part + kSize + 1) * weight;
      sum += __ldcg(part + i % kSize) * weight;
    }
    static_cast<T*>(args.attended)[row * kSize + i % kSize] = from_float<T>(sum / mass);
  }
  __syncthreads();
}

template <typename T, int kSize>
__device__ void attend_all(const DecodeArgs& args, int layer, const Rows& rows, float* shared) {
  const int items = rows.count * args.kv_heads * args.most_splits;
  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const int split = item % args.most_splits, kv_head = item / args.most_splits % args.kv_heads;
    const int sequence = rows.sequence[item / args.most_splits / args.kv_heads];
    const int held = args.key_count[layer * args.batch + sequence];
    const int splits = max(1, min(args.most_splits, held / kMinSplitKeys));
    if (split >= splits) continue;
    const DecodeLayerArgs& weights = args.layers[layer];
    if (args.heads == args.kv_heads)
      attend<T, kSize, 1>(args, weights, sequence, kv_head, split, splits, held, shared);
    else
      attend<T, kSize, kMaxGroup>(args, weights, sequence, kv_head, split, splits, held, shared);
    if (splits > 1) join_splits<T, kSize>(args, sequence, kv_head, splits);
  }
}

}  // namespace fathom::cuda
