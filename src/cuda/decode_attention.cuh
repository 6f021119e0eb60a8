// Attention of one new token a sequence to the keys that a cache holds: blocks share a sequence's keys, lanes
// share a key, and every group of lanes keeps a softmax of its own until all are joined.
#pragma once

#include <algorithm>

#include "cuda/decode_states.cuh"

namespace fathom::cuda {

constexpr int kMinSplitKeys = 64;
constexpr int kPartsAhead = 8;  ///< parts of a sequence's keys that a lane asks for before it joins the first
constexpr int kMostJoinedByReaders = 264;  ///< of all heads together: 72 KB of heads of 64, 140 KB of 128
constexpr int kMaxGroup = 8;               ///< heads that share keys
constexpr int kKeysAhead = 4;              ///< keys that a lane asks for before it looks at the first

/// A lane's 8 elements of a head of queries or keys as they were projected, and those that they turn with.
struct Unturned {
  uint4 own, partner;
};

template <typename T, int kSize>
__device__ Unturned load_unturned(const T* head, int lane) {
  constexpr int kLanes = kSize / 8;
  const int other = lane < kLanes / 2 ? lane + kLanes / 2 : lane - kLanes / 2;
  return {shared_by_blocks(head + lane * 8), shared_by_blocks(head + other * 8)};
}

/// The angles of a lane's elements at the present position; the sine's sign is that of the lane's half.
struct Angles {
  float cos[8], sin[8];
};

template <int kSize>
__device__ Angles load_angles(const DecodeArgs& args, int lane) {
  constexpr int kHalf = kSize / 16;
  const int angle = lane % kHalf * 8;
  Angles angles;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float sin = __ldg(args.sin + angle + i);
    angles.cos[i] = __ldg(args.cos + angle + i);
    angles.sin[i] = lane < kHalf ? -sin : sin;
  }
  return angles;
}

template <typename T>
__device__ void turn(float (&y)[8], const Unturned& bits, const Angles& angles) {
  const Vector16<T> own = vector_of<T>(bits.own), partner = vector_of<T>(bits.partner);
#pragma unroll
  for (int i = 0; i < 8; ++i)
    y[i] = to_float(
        from_float<T>(to_float(own.values[i]) * angles.cos[i] + to_float(partner.values[i]) * angles.sin[i]));
}

/// Parts of a sequence's keys that blocks share.
__device__ inline int splits_of(const DecodeArgs& args, int held) {
  return max(1, min(args.most_splits, held / kMinSplitKeys));
}

/// Whether each block that needs the parts' sums joins them itself: one meeting and an atomic less to wait
/// for, but all blocks read all parts.
__device__ inline bool joined_by_readers(const DecodeArgs& args) {
  return args.most_splits > 1 && args.batch * args.heads * args.most_splits <= kMostJoinedByReaders;
}

/// Floats of a part: sums, the highest score, the mass and two of nothing, so that vectors are aligned.
template <int kSize>
constexpr int kPartSize = kSize + 4;

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

  // All that is waited for is asked for before any of it is used: keys, then queries.
  const int share = (held + splits - 1) / splits, first = split * share, last = min(held, first + share);
  constexpr int kStep = kDecodeWarps * kParallel;
  const int warp_first = first + warp * kParallel, own_first = warp_first + lane / kLanes;
  uint4 key_bits[kKeysAhead], value_bits[kKeysAhead];
  const auto load = [&](int a, int ahead) {
    const int64_t at = int64_t{min(own_first + ahead, last - 1)} * kSize;
    key_bits[a] = streamed(keys + at);
    value_bits[a] = streamed(values + at);
  };
#pragma unroll
  for (int a = 0; a < kKeysAhead; ++a)
    if (warp_first + a * kStep < last) load(a, a * kStep);
  const bool has_own = split + 1 == splits && warp == 0;  // the token itself
  Unturned own_key = {};
  uint4 own_value = {};
  if (has_own) {
    own_key = load_unturned<T, kSize>(turned + (args.heads + kv_head) * kSize, place);
    own_value = shared_by_blocks(turned + (args.heads + args.kv_heads + kv_head) * kSize + place * 8);
  }
  const Angles angles = load_angles<kSize>(args, place);
  const float scale = rsqrtf(static_cast<float>(kSize)) * 1.44269504f;
  float query[kGroup][8];
#pragma unroll
  for (int h = 0; h < kGroup; ++h) {
    if (h >= group) break;
    turn<T>(query[h], load_unturned<T, kSize>(turned + (kv_head * group + h) * kSize, place), angles);
#pragma unroll
    for (int i = 0; i < 8; ++i) query[h][i] *= scale;
  }
  Softmax found[kGroup];
  const auto look = [&](const float(&key)[8], const uint4& bits, bool there) {
    const Vector value_vector = vector_of<T>(bits);
    float value[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) value[i] = to_float(value_vector.values[i]);
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

  if (has_own) {  // also kept for later tokens
    float key[8];
    turn<T>(key, own_key, angles);
    Vector key_vector;
#pragma unroll
    for (int i = 0; i < 8; ++i) key_vector.values[i] = from_float<T>(key[i]);
    if (lane < kLanes) {
      *reinterpret_cast<Vector*>(keys + int64_t{held} * kSize) = key_vector;
      *reinterpret_cast<uint4*>(values + int64_t{held} * kSize) = own_value;
    }
    look(key, own_value, lane < kLanes);
  }
  for (int ahead = 0; warp_first + ahead < last; ahead += kStep * kKeysAhead) {
#pragma unroll
    for (int a = 0; a < kKeysAhead; ++a) {
      const int at = ahead + a * kStep, next = at + kStep * kKeysAhead;
      if (warp_first + at >= last) break;
      const Vector key_vector = vector_of<T>(key_bits[a]);
      const uint4 value = value_bits[a];
      float key[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) key[i] = to_float(key_vector.values[i]);
      if (warp_first + next < last) load(a, next);
      look(key, value, own_first + at < last);
    }
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
    float* kept = args.parts + (row * args.most_splits + split) * kPartSize<kSize>;
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
    const float* parts = args.parts + row * args.most_splits * kPartSize<kSize>;
    float most = -INFINITY, mass = 0, sum = 0;
#pragma unroll 8
    for (int s = 0; s < splits; ++s) most = fmaxf(most, __ldcg(parts + s * kPartSize<kSize> + kSize));
#pragma unroll 8
    for (int s = 0; s < splits; ++s) {
      const float* part = parts + s * kPartSize<kSize>;
      const float weight = exp2f(__ldcg(part + kSize) - most);
      mass += __ldcg(part + kSize + 1) * weight;
      sum += __ldcg(part + i % kSize) * weight;
    }
    static_cast<T*>(args.attended)[row * kSize + i % kSize] = from_float<T>(sum / mass);
  }
  __syncthreads();
}

/// A block's share of attention: of one sequence's keys for one head of keys.
struct Share {
  int sequence, kv_head, held, split, splits;

  __device__ Share(const DecodeArgs& args, const Rows& rows, int item) {
    split = item % args.most_splits;
    kv_head = item / args.most_splits % args.kv_heads;
    const int row = item / args.most_splits / args.kv_heads;
    sequence = rows.sequence[row];
    held = rows.held[row];
    splits = splits_of(args, held);
  }
};

/// Brings the keys and values near that a block will look at first, which lie there from earlier launches.
template <typename T, int kSize>
__device__ void prefetch_keys(const DecodeArgs& args, int layer, const Rows& rows) {
  constexpr int kLines = kSize * static_cast<int>(sizeof(T)) / 128;  // of a key
  constexpr int kKeys = kDecodeThreads / (kSize / 8) * kKeysAhead;
  const int item = static_cast<int>(blockIdx.x);
  if (item >= rows.count * args.kv_heads * args.most_splits) return;
  const Share share(args, rows, item);
  if (share.split >= share.splits) return;
  const int keys = (share.held + share.splits - 1) / share.splits, first = share.split * keys;
  const int count = min(kKeys, min(keys, share.held - first));
  const int64_t begin = (int64_t{share.sequence} * args.kv_heads + share.kv_head) * args.capacity + first;
  const auto* near_keys = static_cast<const T*>(args.layers[layer].keys) + begin * kSize;
  const auto* near_values = static_cast<const T*>(args.layers[layer].values) + begin * kSize;
  for (int i = threadIdx.x; i < count * kLines; i += kDecodeThreads) {
    prefetch_line(near_keys + i * (128 / static_cast<int>(sizeof(T))));
    prefetch_line(near_values + i * (128 / static_cast<int>(sizeof(T))));
  }
}

template <typename T, int kSize>
__device__ void attend_all(const DecodeArgs& args, int layer, const Rows& rows, float* shared) {
  const int items = rows.count * args.kv_heads * args.most_splits;
  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const auto [sequence, kv_head, held, split, splits] = Share(args, rows, item);
    if (split >= splits) continue;
    const DecodeLayerArgs& weights = args.layers[layer];
    if (args.heads == args.kv_heads)
      attend<T, kSize, 1>(args, weights, sequence, kv_head, split, splits, held, shared);
    else
      attend<T, kSize, kMaxGroup>(args, weights, sequence, kv_head, split, splits, held, shared);
    if (splits > 1 && !joined_by_readers(args)) join_splits<T, kSize>(args, sequence, kv_head, splits);
  }
}

/// Four elements of what one head attended to, from its parts.
template <int kSize>
__device__ float4 joined(const float* parts, int splits, int element) {
  float most = -INFINITY, mass = 0;
  float4 sum = {0, 0, 0, 0};
  for (int begin = 0; begin < splits; begin += kPartsAhead) {
    float2 mark[kPartsAhead];  // highest score, mass
    float4 part[kPartsAhead];
#pragma unroll
    for (int a = 0; a < kPartsAhead; ++a) {
      const float* from = parts + min(begin + a, splits - 1) * kPartSize<kSize>;
      mark[a] = __ldcg(reinterpret_cast<const float2*>(from + kSize));
      part[a] = __ldcg(reinterpret_cast<const float4*>(from + element));
    }
    float highest = most;
#pragma unroll
    for (int a = 0; a < kPartsAhead; ++a) {
      if (begin + a >= splits) mark[a].x = -INFINITY;
      highest = fmaxf(highest, mark[a].x);
    }
    const float keep = exp2f(most - highest);
    mass *= keep;
    sum = {sum.x * keep, sum.y * keep, sum.z * keep, sum.w * keep};
#pragma unroll
    for (int a = 0; a < kPartsAhead; ++a) {
      const float weight = exp2f(mark[a].x - highest);
      mass += mark[a].y * weight;
      sum.x += part[a].x * weight;
      sum.y += part[a].y * weight;
      sum.z += part[a].z * weight;
      sum.w += part[a].w * weight;
    }
    most = highest;
  }
  return {sum.x / mass, sum.y / mass, sum.z / mass, sum.w / mass};
}

/// What the sequences attended to, into shared memory, [count, heads · kSize + kPadding].
template <typename T, int kSize>
__device__ void load_attended(T* held, const DecodeArgs& args, const Rows& rows) {
  struct alignas(8) Quad {
    T values[4];
  };
  constexpr int kQuads = kSize / 4;
  const int depth = args.heads * kSize;
  const T* attended = static_cast<const T*>(args.attended);
  if (!joined_by_readers(args)) {
    load_states(held, attended, depth, rows);
    return;
  }
  for (int i = threadIdx.x; i < rows.count * args.heads * kQuads; i += kDecodeThreads) {
    const int element = i % kQuads * 4, head = i / kQuads % args.heads, row = i / kQuads / args.heads;
    const int splits = splits_of(args, rows.held[row]);
    const int64_t from = int64_t{rows.sequence[row]} * args.heads + head;
    T* to = held + row * (depth + kPadding) + head * kSize + element;
    if (splits == 1) {
      *reinterpret_cast<uint2*>(to) =
          __ldcg(reinterpret_cast<const uint2*>(attended + from * kSize + element));
      continue;
    }
    const float4 sum =
        joined<kSize>(args.parts + from * args.most_splits * kPartSize<kSize>, splits, element);
    *reinterpret_cast<Quad*>(to) = {
        {from_float<T>(sum.x), from_float<T>(sum.y), from_float<T>(sum.z), from_float<T>(sum.w)}};
  }
  __syncthreads();
}

}  // namespace fathom::cuda
