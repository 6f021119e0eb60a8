// One token a sequence through all layers of a decoder in one launch. Weights are read once and are nearly
// all of the traffic, so what counts is to keep them flowing: every multiprocessor holds one block, blocks
// share each product's columns, and between products they wait for one another at a counter. A layer that
// nobody's gate lets through costs its gate alone.
#include <algorithm>

#include "cuda/decode_attention.cuh"
#include "cuda/decode_gates.cuh"

namespace fathom::cuda {
namespace {

constexpr int64_t kReserved = 2048;  ///< of shared memory, for what is named in the kernel
constexpr int64_t kUnitBytes = int64_t{kDecodeWarps} * kPieces * 32 * 16;
constexpr int64_t kMostUnits = 16;

__host__ __device__ int64_t sums_bytes(int tiles) {
  return int64_t{4} * kDecodeWarps * kTileRows * tiles * kTileTokens;
}

/// The states of all sequences, in another phase what warps make of their keys.
__host__ __device__ int64_t input_bytes(const DecodeArgs& args) {
  const int64_t normed = int64_t{2} * args.batch * (args.dim + kPadding);
  const int64_t attention = int64_t{4} * kDecodeWarps * kMaxGroup * (args.head_size + 2);
  return ((normed > attention ? normed : attention) + 127) / 128 * 128;
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

/// Asks for the norms' weights of a layer, behind the first, and of those that may come next.
template <typename T>
__device__ void prefetch_norms(const DecodeArgs& args, int layer) {
  const int bytes = args.dim * static_cast<int>(sizeof(T));
  prefetch_bytes(args.layers[layer].mlp_norm, bytes);
  for (int next = layer + 1; next < min(args.num_layers, layer + 1 + args.lookahead); ++next) {
    prefetch_bytes(args.layers[next].attention_norm, bytes);
    if (args.layers[next].gate_norm != nullptr) prefetch_bytes(args.layers[next].gate_norm, bytes);
  }
}

/// x + W input, in place: each element has one writer.
template <typename T, int kTiles>
__device__ void add_product(const DecodeArgs& args, const Columns& columns, const void* input,
                            const Rows& rows, float* sums, Stage& stage) {
  T* x = static_cast<T*>(args.x);
  // Written by another multiprocessor before; bits of 16, past the first cache.
  const auto bits_of = [&](int column, int row) {
    const T* place = x + int64_t{rows.sequence[row]} * args.dim + column;
    return __ldcg(reinterpret_cast<const unsigned short*>(place));
  };
  // What a thread adds to first is asked for before it multiplies.
  const int first_column = columns.first_job() * kTileRows + static_cast<int>(threadIdx.x) % kTileRows;
  const int first_row = static_cast<int>(threadIdx.x) / kTileRows;
  unsigned short first_bits = 0;
  if (columns.first_job() < columns.jobs && first_row < rows.count)
    first_bits = bits_of(first_column, first_row);
  product<T, kTiles, false>(
      columns, rows.count, sums, stage,
      [&](int row, int k) {
        return shared_by_blocks(static_cast<const T*>(input) + int64_t{rows.sequence[row]} * columns.depth +
                                k);
      },
      [&](int column, int row, float sum, float) {
        const bool first = column == first_column && row == first_row;
        const unsigned short bits = first ? first_bits : bits_of(column, row);
        x[int64_t{rows.sequence[row]} * args.dim + column] =
            from_float<T>(to_float(reinterpret_cast<const T&>(bits)) + to_float(from_float<T>(sum)));
      });
}

/// Asks for the weights that come first in `layer`: of its gate, or where everything is computed, of its
/// queries.
template <typename T>
__device__ void stage_layer(const DecodeArgs& args, int layer, int width, Stage& stage) {
  if (layer >= args.num_layers) return;
  if (args.layers[layer].gate_norm == nullptr) {
    if (args.forced == nullptr)
      stage_weights<T>(plain_columns(args.layers[layer].qkv, width, args.dim), stage);
    return;
  }
  for (int other = layer; other < last_scored(args, layer); ++other) {
    const Columns columns = gate_columns(args, layer, other);
    if (columns.first_job() >= columns.jobs) continue;
    stage_weights<T>(columns, stage);
    return;
  }
}

template <typename T, int kTiles, int kSize>
__device__ void compute_layer(const DecodeArgs& args, int layer, const Rows& rows, T* input, float* sums,
                              Stage& stage, Place& place) {
  const DecodeLayerArgs& weights = args.layers[layer];
  const int width = (args.heads + 2 * args.kv_heads) * kSize;
  const Columns qkv = plain_columns(weights.qkv, width, args.dim);
  const Columns output = plain_columns(weights.output, args.dim, args.heads * kSize);
  const Columns gate_up = {weights.gate_up, args.inner / 8, args.dim, 8, args.inner};
  const Columns down = plain_columns(weights.down, args.dim, args.inner);
  const auto normed = [&](int row, int k) {
    return *reinterpret_cast<const uint4*>(input + row * (args.dim + kPadding) + k);
  };

  if (stage.weight != qkv.weight) stage_weights<T>(qkv, stage);
  if (is_last_block()) prefetch_norms<T>(args, layer);
  load_normed(input, args, rows, weights.attention_norm, args.eps);
  product<T, kTiles, false>(qkv, rows.count, sums, stage, normed, [&](int column, int row, float sum, float) {
    static_cast<T*>(args.turned)[int64_t{rows.sequence[row]} * width + column] = from_float<T>(sum);
  });
  stage_weights<T>(output, stage);
  meet(place);
  attend_all<T, kSize>(args, layer, rows, reinterpret_cast<float*>(input));
  prefetch<T>(gate_up);
  meet(place);
  add_product<T, kTiles>(args, output, args.attended, rows, sums, stage);
  stage_weights<T>(gate_up, stage);
  prefetch<T>(down);
  meet(place);
  load_normed(input, args, rows, weights.mlp_norm, args.eps);
  product<T, kTiles, true>(gate_up, rows.count, sums, stage, normed,
                           [&](int column, int row, float gate, float up) {
                             const float g = to_float(from_float<T>(gate));
                             const float opened = to_float(from_float<T>(g / (1 + __expf(-g))));
                             static_cast<T*>(args.gated)[int64_t{rows.sequence[row]} * args.inner + column] =
                                 from_float<T>(opened * to_float(from_float<T>(up)));
                           });
  stage_weights<T>(down, stage);
  meet(place);
  add_product<T, kTiles>(args, down, args.gated, rows, sums, stage);
  stage_layer<T>(args, layer + 1, width, stage);
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
  __shared__ Choices chosen;
  float* sums = reinterpret_cast<float*>(memory);
  T* input = reinterpret_cast<T*>(memory + sums_bytes(kTiles));
  const int64_t staged = int64_t{static_cast<int>(threadIdx.x) / 32} * args.staged_units * kPieces * 32;
  Stage stage{reinterpret_cast<uint4*>(memory + sums_bytes(kTiles) + input_bytes(args)) + staged,
              args.staged_units};
  Place place{args};
  if (threadIdx.x == 0) {
    all.count = args.batch;
    for (int row = 0; row < args.batch; ++row) all.sequence[row] = row;
  }
  __syncthreads();
  int first = 0, end = 0;  // of the layers of which it is known what computes the present states
  for (int layer = 0; layer < args.num_layers; ++layer) {
    if (layer >= end) {
      const bool scores = args.layers[layer].gate_norm != nullptr;
      first = layer;
      end = scores ? last_scored(args, layer) : layer + 1;
      if (scores) {
        score_gates<T, kTiles>(args, first, end, input, sums, stage, all);
        meet(place);
      }
      choose<T>(args, first, end, scores, chosen);
    }
    if (take_chosen(chosen + (layer - first) * args.batch, args.batch, rows) == 0) continue;
    compute_layer<T, kTiles, kSize>(args, layer, rows, input, sums, stage, place);
    end = layer + 1;
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

int64_t fixed_bytes(const DecodeArgs& args) {
  return sums_bytes(tiles_of(args.batch)) + input_bytes(args);
}

template <typename T, int kTiles, int kSize>
cudaError_t launch(DecodeArgs& args, const DecodeCard& card, cudaStream_t stream) {
  const auto kernel = decode_kernel<T, kTiles, kSize>;
  const int64_t room = card.shared_bytes - kReserved - fixed_bytes(args);
  // As many gates at once as leave no block more than one job, in a batch fewer: its sequences soon disagree.
  const int jobs = std::max(1, 2 * args.gate_inner / kTileRows);
  args.lookahead = std::clamp(card.multiprocessors / jobs, 1, std::max(1, kMostScored / args.batch));
  args.staged_units = static_cast<int>(std::clamp<int64_t>(room / kUnitBytes, 0, kMostUnits));
  const auto bytes = static_cast<size_t>(fixed_bytes(args) + args.staged_units * kUnitBytes);
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
         args.gate_inner % 8 == 0 && fixed_bytes(args) + kReserved <= card.shared_bytes;
}

cudaError_t launch_decode_layers(ElementType type, DecodeArgs& args, const DecodeCard& card,
                                 cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return launch_for_heads<__nv_bfloat16>(args, card, stream);
  return type == ElementType::kHalf ? launch_for_heads<__half>(args, card, stream) : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
