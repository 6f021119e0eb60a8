// One token a sequence through all layers of a decoder in one launch. Weights are read once and are nearly
// all of the traffic, so what counts is to keep them flowing: every multiprocessor holds one block, blocks
// share each product's columns, and between products they wait for one another at a counter. A layer that
// nobody's gate lets through costs its gate alone.
#include <algorithm>

#include "cuda/decode_attention.cuh"
#include "cuda/decode_gates.cuh"

namespace fathom::cuda {
namespace {

constexpr int64_t kReserved = 4096;  ///< of shared memory, for what is named in the kernel
constexpr int64_t kUnitBytes = int64_t{kDecodeWarps} * kPieces * 32 * 16;
constexpr int64_t kMostUnits = 16;
constexpr int64_t kLeastUnits = 4;  ///< that stay where more states are held

__host__ __device__ int64_t sums_bytes(int tiles) {
  return int64_t{4} * jobs_together(tiles) * kDecodeWarps * kTileRows * tiles * kTileTokens;
}

__host__ __device__ int64_t norm_bytes(const DecodeArgs& args) {
  return (int64_t{2} * args.dim + 127) / 128 * 128;
}

int64_t bytes_of_states(const DecodeArgs& args, int64_t depth) {
  return int64_t{2} * args.batch * (depth + kPadding);
}

/// The states of all sequences and what they attended to, in another phase what warps make of their keys.
int64_t least_state_bytes(const DecodeArgs& args) {
  const int64_t widest = std::max<int64_t>(args.dim, int64_t{args.heads} * args.head_size);
  const int64_t attention = int64_t{4} * kDecodeWarps * kMaxGroup * (args.head_size + 2);
  return (std::max(bytes_of_states(args, widest), attention) + 127) / 128 * 128;
}

struct Place {
  const DecodeArgs& args;
  unsigned passed = 0;  ///< arrivals that the next meeting waits for
};

/// Until all blocks are here; what they wrote before is seen by all.
__device__ void meet(Place& place) {
  place.passed += gridDim.x;
  __syncthreads();
  if (threadIdx.x == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(place.args.arrived) : "memory");
    unsigned seen = 0;
    do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(place.args.arrived) : "memory");
    while (seen < place.passed);
  }
  __syncthreads();
}

/// What the kernel holds in shared memory.
template <typename T>
struct Room {
  float* sums;
  T* states;
  StagedNorm norm, gate_norm;
  Stage stage, gates;  ///< with many sequences there is one for all

  template <int kTiles>
  __device__ Stage& stage_of_gates() {
    return kTiles == 1 ? gates : stage;
  }
};

/// Columns of a product with normed states in `room`, without pairs.
template <typename T, int kTiles, typename Store>
__device__ void normed_product(const DecodeArgs& args, const Columns& columns, int count, Room<T>& room,
                               Stage& stage, const Store& store) {
  product<T, kTiles, kSingle<kTiles>>(
      columns, count, room.sums, stage,
      [&](int row, int k) {
        return *reinterpret_cast<const uint4*>(room.states + row * (args.dim + kPadding) + k);
      },
      [](int, int) { return 0.0f; }, [&](int column, int row, float sum, float) { store(column, row, sum); });
}

/// What the scorers of layers `first` to `end` make of all sequences, before their sums.
template <typename T, int kTiles>
__device__ void score_gates(const DecodeArgs& args, int first, int end, Room<T>& room, const Rows& all) {
  const int width = 2 * args.gate_inner;
  Stage& stage = room.template stage_of_gates<kTiles>();
  for (int layer = first; layer < end; ++layer) {
    const Columns columns = gate_columns<kTiles>(args, first, layer);
    if (columns.first_job() >= columns.jobs) continue;
    if (stage.weight != columns.weight) stage_weights<T>(columns, stage);
    load_normed(room.states, args, all, args.layers[layer].gate_norm, room.gate_norm, args.gate_eps);
    float* both = args.both + int64_t{layer} * args.batch * width;
    normed_product<T, kTiles>(args, columns, all.count, room, stage,
                              [&](int column, int row, float sum) { both[row * width + column] = sum; });
  }
}

/// x + W input, in place: each element has one writer. `load` brings the input into `room.states`, where it
/// fits.
template <typename T, int kTiles, typename Load>
__device__ void add_product(const DecodeArgs& args, const Columns& columns, const void* input,
                            const Rows& rows, Room<T>& room, const Load& load) {
  if (columns.first_job() >= columns.jobs) return;
  const T* states = static_cast<const T*>(input);
  const auto place = [&](int column, int row) {
    return static_cast<T*>(args.x) + int64_t{rows.sequence[row]} * args.dim + column;
  };
  const auto add_to = [&](const auto& take) {
    product<T, kTiles, kSingle<kTiles>>(
        columns, rows.count, room.sums, room.stage, take,
        [&](int column, int row) {
          // Written by another multiprocessor before; bits of 16, past the first cache.
          const unsigned short bits = __ldcg(reinterpret_cast<const unsigned short*>(place(column, row)));
          return to_float(reinterpret_cast<const T&>(bits));
        },
        [&](int column, int row, float sum, float before) {
          *place(column, row) = from_float<T>(before + to_float(from_float<T>(sum)));
        });
  };
  if (states_fit(args, rows.count, columns.depth)) {
    load();
    add_to([&](int row, int k) {
      return *reinterpret_cast<const uint4*>(room.states + row * (columns.depth + kPadding) + k);
    });
  } else {
    add_to([&](int row, int k) {
      return shared_by_blocks(states + int64_t{rows.sequence[row]} * columns.depth + k);
    });
  }
}

template <int kTiles>
__device__ Columns qkv_columns(const DecodeArgs& args, int layer) {
  return single_columns<kTiles>(args.layers[layer].qkv, (args.heads + 2 * args.kv_heads) * args.head_size,
                                args.dim);
}

/// Whether the queries of `layer` are made whatever its gate says: with few sequences in the same phase as
/// its score, which takes hardly longer, so that a layer that is computed does not wait for its gate.
template <int kTiles>
__device__ bool projects_ahead(const DecodeArgs& args, int layer) {
  return args.layers[layer].gate_norm == nullptr ? args.forced == nullptr : kTiles == 1;
}

/// Brings the weights near that come first in `layer`: of gates, and of queries.
template <typename T, int kTiles>
__device__ void prefetch_layer(const DecodeArgs& args, int layer) {
  if (layer >= args.num_layers) return;
  if (args.layers[layer].gate_norm != nullptr) {
    prefetch_gates(args, layer);
    for (int other = layer; other < last_scored(args, layer); ++other)
      prefetch<T>(gate_columns<kTiles>(args, layer, other));
  }
  if (projects_ahead<kTiles>(args, layer)) prefetch<T>(qkv_columns<kTiles>(args, layer));
}

/// Asks for them.
template <typename T, int kTiles>
__device__ void stage_layer(const DecodeArgs& args, int layer, Room<T>& room) {
  if (layer >= args.num_layers) return;
  const DecodeLayerArgs& weights = args.layers[layer];
  for (int other = layer; weights.gate_norm != nullptr && other < last_scored(args, layer); ++other) {
    const Columns columns = gate_columns<kTiles>(args, layer, other);
    if (columns.first_job() >= columns.jobs) continue;
    stage_norm(args.layers[other].gate_norm, args.dim, room.gate_norm);
    stage_weights<T>(columns, room.template stage_of_gates<kTiles>());
    break;
  }
  if (!projects_ahead<kTiles>(args, layer)) return;
  stage_norm(weights.attention_norm, args.dim, room.norm);
  stage_weights<T>(qkv_columns<kTiles>(args, layer), room.stage);
}

/// Queries, keys and values of the new tokens.
template <typename T, int kTiles>
__device__ void project(const DecodeArgs& args, int layer, const Rows& rows, Room<T>& room) {
  const Columns columns = qkv_columns<kTiles>(args, layer);
  if (columns.first_job() >= columns.jobs) return;
  const int64_t width = (args.heads + 2 * args.kv_heads) * args.head_size;
  if (room.stage.weight != columns.weight) stage_weights<T>(columns, room.stage);
  load_normed(room.states, args, rows, args.layers[layer].attention_norm, room.norm, args.eps);
  normed_product<T, kTiles>(args, columns, rows.count, room, room.stage, [&](int column, int row, float sum) {
    static_cast<T*>(args.turned)[rows.sequence[row] * width + column] = from_float<T>(sum);
  });
}

/// What the feed-forward layer's gates let through.
template <typename T, int kTiles>
__device__ void open_gates(const DecodeArgs& args, const Columns& gate_up, const void* norm_weight,
                           const Rows& rows, Room<T>& room) {
  if (gate_up.first_job() >= gate_up.jobs) return;
  load_normed(room.states, args, rows, norm_weight, room.norm, args.eps);
  product<T, kTiles, Job::kPairs>(
      gate_up, rows.count, room.sums, room.stage,
      [&](int row, int k) {
        return *reinterpret_cast<const uint4*>(room.states + row * (args.dim + kPadding) + k);
      },
      [](int, int) { return 0.0f; },
      [&](int column, int row, float gate, float up) {
        const float g = to_float(from_float<T>(gate));
        const float opened = to_float(from_float<T>(g / (1 + __expf(-g))));
        static_cast<T*>(args.gated)[int64_t{rows.sequence[row]} * args.inner + column] =
            from_float<T>(opened * to_float(from_float<T>(up)));
      });
}

template <typename T, int kTiles, int kSize>
__device__ void compute_layer(const DecodeArgs& args, int layer, bool projected, const Rows& rows,
                              Room<T>& room, Place& place) {
  const DecodeLayerArgs& weights = args.layers[layer];
  const Columns output = single_columns<kTiles>(weights.output, args.dim, args.heads * kSize);
  const Columns gate_up = {weights.gate_up, args.inner / 8, args.dim, 8, args.inner};
  const Columns down = single_columns<kTiles>(weights.down, args.dim, args.inner);

  if (!projected) project<T, kTiles>(args, layer, rows, room);
  stage_weights<T>(output, room.stage);
  if (!projected) {
    prefetch_keys<T, kSize>(args, layer, rows);
    meet(place);
  }
  attend_all<T, kSize>(args, layer, rows, reinterpret_cast<float*>(room.states));
  prefetch<T>(gate_up);
  meet(place);
  add_product<T, kTiles>(args, output, args.attended, rows, room,
                         [&] { load_attended<T, kSize>(room.states, args, rows); });
  stage_norm(weights.mlp_norm, args.dim, room.norm);
  stage_weights<T>(gate_up, room.stage);
  prefetch<T>(down);
  meet(place);
  open_gates<T, kTiles>(args, gate_up, weights.mlp_norm, rows, room);
  stage_weights<T>(down, room.stage);
  prefetch_layer<T, kTiles>(args, layer + 1);
  meet(place);
  add_product<T, kTiles>(args, down, args.gated, rows, room, [&] {
    load_states(room.states, static_cast<const T*>(args.gated), args.inner, rows);
  });
  stage_layer<T, kTiles>(args, layer + 1, room);
  meet(place);
}

__device__ float entropy_bits(float p) {
  return p > 0 ? -p * log2f(p) : 0.0f;
}

/// What the caches and the gates' counts hold after the token, when all blocks have met.
template <typename T>
__device__ void keep_counts(const DecodeArgs& args) {
  for (int layer = blockIdx.x; layer < args.num_layers; layer += gridDim.x) {
    const DecodeLayerArgs& weights = args.layers[layer];
    const bool* active = args.active + layer * args.batch;
    for (int row = threadIdx.x; row < args.batch; row += kDecodeThreads)
      if (active[row]) args.key_count[layer * args.batch + row] += 1;
    if (weights.gate_norm != nullptr) {
      const int inner = args.gate_inner;
      const auto* shift = static_cast<const T*>(weights.shift);
      for (int i = threadIdx.x; i < args.batch * inner; i += kDecodeThreads) {
        const float* both = args.both + (int64_t{layer} * args.batch + i / inner) * 2 * inner;
        weights.gate_sum[i] += __ldcg(both + inner + i % inner) + to_float(shift[inner + i % inner]);
      }
    }
    if (weights.counts == nullptr || threadIdx.x != 0) continue;
    for (int row = 0; row < args.batch; ++row) {
      weights.counts[0] += active[row] ? 1 : 0;
      weights.counts[1] += 1;
      if (weights.gate_norm == nullptr) continue;
      const float p = 1 / (1 + expf(-args.score[layer * args.batch + row]));
      weights.counts[2] += entropy_bits(p) + entropy_bits(1 - p);
    }
  }
}

template <typename T, int kTiles, int kSize>
__global__ void __launch_bounds__(kDecodeThreads, 1) decode_kernel(const __grid_constant__ DecodeArgs args) {
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ Rows all, rows;
  __shared__ Decisions decisions;
  unsigned char* states = memory + sums_bytes(kTiles);
  unsigned char* norm = states + args.state_bytes;
  const int units = args.staged_units + args.gate_units;
  uint4* staged = reinterpret_cast<uint4*>(norm + 2 * norm_bytes(args)) +
                  int64_t{static_cast<int>(threadIdx.x) / 32} * units * kPieces * 32;
  Room<T> room{.sums = reinterpret_cast<float*>(memory),
               .states = reinterpret_cast<T*>(states),
               .norm = {reinterpret_cast<uint4*>(norm)},
               .gate_norm = {reinterpret_cast<uint4*>(norm + norm_bytes(args))},
               .stage = {staged, args.staged_units * kPieces},
               .gates = {staged + int64_t{args.staged_units} * kPieces * 32, args.gate_units * kPieces}};
  Place place{args};
  if (threadIdx.x == 0) {
    all.count = args.batch;
    for (int row = 0; row < args.batch; ++row) all.sequence[row] = row;
  }
  __syncthreads();
  int first = 0, decided = 0;  // layers between have decisions, on the present states
  for (int layer = 0; layer < args.num_layers; ++layer) {
    bool projected = false;
    if (layer >= decided) {
      const bool scores = args.layers[layer].gate_norm != nullptr;
      first = layer;
      decided = scores ? last_scored(args, layer) : layer + 1;
      if (scores) {
        score_gates<T, kTiles>(args, layer, decided, room, all);
        projected = projects_ahead<kTiles>(args, layer);
        if (projected) project<T, kTiles>(args, layer, all, room);
        meet(place);
      }
      decide<T>(args, first, decided, scores, decisions);
    }
    choose(args, decisions, (layer - first) * args.batch, rows);
    if (rows.count == 0) continue;
    compute_layer<T, kTiles, kSize>(args, layer, projected, rows, room, place);
    decided = layer + 1;
  }
  meet(place);
  keep_counts<T>(args);
  // The last to leave makes the counter ready for the next launch.
  __syncthreads();
  if (threadIdx.x == 0 && atomicAdd(args.arrived + 1, 1u) + 1 == gridDim.x) {
    args.arrived[0] = 0;
    args.arrived[1] = 0;
  }
}

/// Few sequences take few registers and little shared memory.
int tiles_of(int batch) {
  return batch <= kTileTokens ? 1 : kMaxDecodeBatch / kTileTokens;
}

/// Of shared memory, beside states and staged weights.
int64_t fixed_bytes(const DecodeArgs& args) {
  return sums_bytes(tiles_of(args.batch)) + 2 * norm_bytes(args) + kReserved;
}

/// Also what goes into the feed-forward layer's second half, where that leaves room to ask for weights.
int64_t state_bytes(const DecodeArgs& args, const DecodeCard& card) {
  const int64_t least = least_state_bytes(args), all = (bytes_of_states(args, args.inner) + 127) / 128 * 128;
  const bool fits = fixed_bytes(args) + all + kLeastUnits * kUnitBytes <= card.shared_bytes;
  return fits ? std::max(least, all) : least;
}

template <typename T, int kTiles, int kSize>
cudaError_t launch(DecodeArgs& args, const DecodeCard& card, cudaStream_t stream) {
  const auto kernel = decode_kernel<T, kTiles, kSize>;
  args.state_bytes = static_cast<int>(state_bytes(args, card));
  const int64_t taken = fixed_bytes(args) + args.state_bytes;
  const int64_t units = std::clamp<int64_t>((card.shared_bytes - taken) / kUnitBytes, 0, kMostUnits);
  const int64_t chunks = (args.dim + kDecodeWarps * kChunk - 1) / (kDecodeWarps * kChunk);
  const bool has_own_stage = kTiles == 1 && args.gate_inner > 0;  // for a narrow job
  args.gate_units = has_own_stage ? static_cast<int>(std::min((chunks + 1) / 2, units / 4)) : 0;
  args.staged_units = static_cast<int>(units) - args.gate_units;
  const auto bytes = static_cast<size_t>(taken - kReserved + units * kUnitBytes);
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
      error != cudaSuccess)
    return error;
  void* parameters[] = {&args};
  return cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel),
                                     dim3(static_cast<unsigned>(card.multiprocessors)), dim3(kDecodeThreads),
                                     parameters, bytes, stream);
}

template <typename T, int kSize>
cudaError_t launch_for_batch(DecodeArgs& args, const DecodeCard& card, cudaStream_t stream) {
  if (tiles_of(args.batch) == 1) return launch<T, 1, kSize>(args, card, stream);
  return launch<T, kMaxDecodeBatch / kTileTokens, kSize>(args, card, stream);
}

template <typename T>
cudaError_t launch_for_heads(DecodeArgs& args, const DecodeCard& card, cudaStream_t stream) {
  switch (args.head_size) {
    case 64:
      return launch_for_batch<T, 64>(args, card, stream);
    case 128:
      return launch_for_batch<T, 128>(args, card, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

bool decode_layers_fit(const DecodeArgs& args, const DecodeCard& card) {
  const int group = args.kv_heads > 0 ? args.heads / args.kv_heads : 0;
  const bool heads = args.heads == group * args.kv_heads &&
                     (group == 1 || group == 2 || group == 4 || group == 8) &&
                     (args.head_size == 64 || args.head_size == 128);
  const int depth = args.heads * args.head_size;
  return heads && args.num_layers <= kMaxDecodeLayers && args.batch >= 1 && args.batch <= kMaxDecodeBatch &&
         args.dim % kChunk == 0 && depth % kChunk == 0 && args.inner % kChunk == 0 &&
         args.gate_inner % 8 == 0 && fixed_bytes(args) + least_state_bytes(args) <= card.shared_bytes;
}

cudaError_t launch_decode_layers(ElementType type, DecodeArgs& args, const DecodeCard& card,
                                 cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return launch_for_heads<__nv_bfloat16>(args, card, stream);
  return type == ElementType::kHalf ? launch_for_heads<__half>(args, card, stream) : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
