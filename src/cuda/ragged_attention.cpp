#include "cuda/ragged_attention.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cudnn/Handle.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "base/error.h"
#include "cuda/element_type_of.h"
#include "cuda/flash_attention.h"
#include "cuda/ragged_offsets.h"

namespace fathom::cuda {
namespace {

namespace fe = cudnn_frontend;
using fe::graph::Graph;
using TensorPointer = std::shared_ptr<fe::graph::Tensor_attributes>;

/// Names of tensors in a graph, by which their pointers are handed over.
enum Name : int64_t {
  kQuery = 1,
  kKey,
  kValue,
  kOutput,
  kSums,
  kGrad,
  kGradQuery,
  kGradKey,
  kGradValue,
  kQueryLength,
  kKeyLength,
  kOffsets = 100  ///< and the name of what begins there
};

/// Of RaggedOffsetArgs: rows of qkv; of the output, and of a gradient by queries, keys or values; of sums.
enum Layout { kInput, kOfOutput, kOfSums };
constexpr std::pair<Name, Layout> kLayouts[] = {
    {kQuery, kInput},        {kKey, kInput},        {kValue, kInput},
    {kOutput, kOfOutput},    {kSums, kOfSums},      {kGrad, kOfOutput},
    {kGradQuery, kOfOutput}, {kGradKey, kOfOutput}, {kGradValue, kOfOutput}};

enum class Pass {
  kForward,
  kBackward,
  kRepeatableBackward,  ///< the same bits in every run: slower, in a workspace that grows with tokens²
};

/// What a graph depends on. The count of rows is read on the device; `tokens`, which bounds a sequence, is
/// rounded up so that prompts of many lengths share a graph.
struct Key {
  int64_t sequences, heads, tokens, size;
  at::ScalarType type;
  c10::DeviceIndex device;
  bool causal;
  Pass pass;
  auto tied() const { return std::tuple(sequences, heads, tokens, size, type, device, causal, pass); }
  bool operator<(const Key& other) const { return tied() < other.tied(); }
};

/// Tensors [sequences, heads, tokens, size] of which each sequence begins where an offset says.
class GraphMaker {
 public:
  explicit GraphMaker(const Key& key) : key_(key), graph_(std::make_unique<Graph>()) {
    graph_->set_io_data_type(key.type == at::kHalf ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    query_length_ = counts(kQueryLength, "query_length", key.sequences);
    key_length_ = counts(kKeyLength, "key_length", key.sequences);
  }

  /// Null where cuDNN has no kernel for it.
  std::unique_ptr<Graph> make() {
    if (key_.pass == Pass::kForward)
      add_forward();
    else
      add_backward();
    const cudnnHandle_t handle = at::native::getCudnnHandle();
    const auto bad = [](const fe::error_t& status) { return status.is_bad(); };
    if (bad(graph_->validate()) || bad(graph_->build_operation_graph(handle)) ||
        bad(graph_->create_execution_plans({fe::HeurMode_t::A})) || bad(graph_->check_support(handle)) ||
        bad(graph_->build_plans(handle)))
      return nullptr;
    return std::move(graph_);
  }

 private:
  TensorPointer counts(int64_t name, const std::string& word, int64_t count) {
    return graph_->tensor(fe::graph::Tensor_attributes()
                              .set_uid(name)
                              .set_name(word)
                              .set_dim({count, 1, 1, 1})
                              .set_stride({1, 1, 1, 1})
                              .set_data_type(fe::DataType_t::INT32));
  }

  /// `row`: elements from one row to the next.
  void lay_out(const TensorPointer& tensor, Name name, int64_t row) {
    tensor->set_uid(name)
        .set_dim({key_.sequences, key_.heads, key_.tokens, key_.size})
        .set_stride({std::numeric_limits<int>::max(), key_.size, row, 1})
        .set_ragged_offset(offsets_of(name));
  }
  TensorPointer offsets_of(Name name) {
    return counts(kOffsets + name, fmt::format("offsets_{}", static_cast<int64_t>(name)), key_.sequences + 1);
  }
  TensorPointer rows(Name name, const char* word, bool packed) {
    const int64_t output = key_.heads * key_.size;
    auto tensor = graph_->tensor(fe::graph::Tensor_attributes().set_name(word));
    lay_out(tensor, name, packed ? 3 * output : output);
    return tensor;
  }
  void lay_out_sums(const TensorPointer& sums) {
    sums->set_uid(kSums)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim({key_.sequences, key_.heads, key_.tokens, 1})
        .set_stride({key_.heads * key_.tokens, 1, key_.heads, 1})
        .set_ragged_offset(offsets_of(kSums));
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(key_.size)); }

  void add_forward() {
    auto [output, sums] =
        graph_->sdpa(rows(kQuery, "query", true), rows(kKey, "key", true), rows(kValue, "value", true),
                     fe::graph::SDPA_attributes()
                         .set_name("ragged_attention")
                         .set_generate_stats(true)
                         .set_attn_scale(scale())
                         .set_causal_mask(key_.causal)
                         .set_padding_mask(true)
                         .set_seq_len_q(query_length_)
                         .set_seq_len_kv(key_length_));
    output->set_output(true);
    lay_out(output, kOutput, key_.heads * key_.size);
    sums->set_output(true);
    lay_out_sums(sums);
  }

  void add_backward() {
    auto sums = graph_->tensor(fe::graph::Tensor_attributes().set_name("sums"));
    lay_out_sums(sums);
    const bool repeatable = key_.pass == Pass::kRepeatableBackward;
    const auto grads = graph_->sdpa_backward(rows(kQuery, "query", true), rows(kKey, "key", true),
                                             rows(kValue, "value", true), rows(kOutput, "output", false),
                                             rows(kGrad, "grad", false), sums,
                                             fe::graph::SDPA_backward_attributes()
                                                 .set_name("ragged_attention_backward")
                                                 .set_attn_scale(scale())
                                                 .set_causal_mask(key_.causal)
                                                 .set_padding_mask(true)
                                                 .set_seq_len_q(query_length_)
                                                 .set_seq_len_kv(key_length_)
                                                 .set_deterministic_algorithm(repeatable));
    const Name names[] = {kGradQuery, kGradKey, kGradValue};
    for (size_t i = 0; i < grads.size(); ++i) {
      grads[i]->set_output(true);
      lay_out(grads[i], names[i], key_.heads * key_.size);
    }
  }

  Key key_;
  std::unique_ptr<Graph> graph_;
  TensorPointer query_length_, key_length_;
};

/// Graphs of all threads, each made when it is first asked for. Plans may not run in several threads at a
/// time, even with a handle each (github.com/pytorch/pytorch/pull/103939), so a lock is held for a launch.
class Graphs {
 public:
  /// Never destroyed: at the program's end cuDNN may be gone before.
  static Graphs& of_process() {
    static Graphs& graphs = *new Graphs;
    return graphs;
  }

  /// Null where cuDNN has none.
  const Graph* find(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto found = graphs_.find(key);
    if (found != graphs_.end()) return found->second.get();
    return graphs_.emplace(key, GraphMaker(key).make()).first->second.get();
  }
  fe::error_t launch(const Graph& graph, std::unordered_map<int64_t, void*>& pointers, void* workspace) {
    const cudnnHandle_t handle = at::native::getCudnnHandle();
    const std::lock_guard lock(mutex_);
    return graph.execute(handle, pointers, workspace);
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::unique_ptr<Graph>> graphs_;
};

Key key_of(const RaggedRows& rows, Pass pass) {
  return {.sequences = rows.sequences(),
          .heads = rows.heads,
          .tokens =
              static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(rows.tokens, 128)))),
          .size = rows.head_size(),
          .type = rows.qkv.scalar_type(),
          .device = rows.qkv.device().index(),
          .causal = rows.causal,
          .pass = pass};
}

/// Room for the lengths of the sequences, and for where each begins in the tensors of every layout.
at::Tensor room_of_offsets(const RaggedRows& rows) {
  return at::empty({rows.sequences() + kRaggedTensors * (rows.sequences() + 1)}, rows.start.options());
}
RaggedOffsetArgs offset_args(const RaggedRows& rows, const at::Tensor& offsets) {
  int32_t* length = offsets.mutable_data_ptr<int32_t>();
  return {.start = rows.start.const_data_ptr<int32_t>(),
          .length = length,
          .offset = length + rows.sequences(),
          .sequences = rows.sequences(),
          .row_elements = {rows.qkv.size(1), rows.heads * rows.head_size(), rows.heads}};
}

/// Of our kernels, results aside.
FlashAttentionArgs flash_args(const RaggedRows& rows) {
  const auto heads_from = [&](int64_t head) {
    const int64_t bytes = head * rows.head_size() * rows.qkv.element_size();
    return RowsOfHeads{static_cast<const char*>(rows.qkv.const_data_ptr()) + bytes, rows.qkv.size(1)};
  };
  return {.q = heads_from(0),
          .k = heads_from(rows.heads),
          .v = heads_from(rows.heads + rows.kv_heads),
          .start = rows.start.const_data_ptr<int32_t>(),
          .rows = rows.count(),
          .sequences = rows.sequences(),
          .tokens = rows.tokens,
          .heads = rows.heads,
          .kv_heads = rows.kv_heads,
          .head_size = rows.head_size(),
          .causal = rows.causal};
}
FlashAttentionGradArgs flash_grad_args(const RaggedRows& rows) {
  FlashAttentionGradArgs args = {.pass = flash_args(rows)};
  args.grad.stride = args.q.stride = rows.heads * rows.head_size();
  args.k.stride = args.v.stride = rows.kv_heads * rows.head_size();
  return args;
}

/// Runs a graph of these rows. `pointers`: to what it takes beside queries, keys, values and counts.
void run(const Graph& graph, const RaggedRows& rows, const at::Tensor& offsets,
         std::unordered_map<int64_t, void*> pointers) {
  const int64_t sequences = rows.sequences(), output = rows.qkv.size(1) / 3;
  int32_t* length = static_cast<int32_t*>(offsets.data_ptr());
  pointers[kQueryLength] = pointers[kKeyLength] = length;
  auto* begin = static_cast<char*>(rows.qkv.data_ptr());
  const Name parts[] = {kQuery, kKey, kValue};
  for (int i = 0; i < 3; ++i) pointers[parts[i]] = begin + i * output * rows.qkv.element_size();
  for (const auto& [name, layout] : kLayouts)
    if (pointers.contains(name)) pointers[kOffsets + name] = length + sequences + layout * (sequences + 1);
  int64_t workspace_bytes = 0;
  FATHOM_CHECK(graph.get_workspace_size(workspace_bytes).is_good(), "[ragged_attention] cuDNN has no plan");
  const auto workspace = at::empty({workspace_bytes}, rows.start.options().dtype(at::kByte));
  auto status = Graphs::of_process().launch(graph, pointers, workspace.data_ptr());
  FATHOM_CHECK(status.is_good(), "[ragged_attention] cuDNN: {}", status.get_message());
}

/// Hopper's kernels alone are known to be faster than LibTorch's flash attention here.
bool fits(const RaggedRows& rows) {
  const auto type = rows.qkv.scalar_type();
  return (type == at::kHalf || type == at::kBFloat16) && rows.qkv.is_contiguous() &&
         at::cuda::getDeviceProperties(rows.qkv.device().index())->major == 9 && rows.qkv.numel() > 0 &&
         rows.tokens > 0 && rows.sequences() > 0;
}
/// cuDNN's graph of a pass, if it takes these.
const Graph* graph_of(const RaggedRows& rows, Pass pass) {
  if (rows.heads != rows.kv_heads || rows.head_size() % 8 != 0 || rows.head_size() > 128 ||
      rows.qkv.numel() > std::numeric_limits<int32_t>::max())
    return nullptr;
  return Graphs::of_process().find(key_of(rows, pass));
}

}  // namespace

std::optional<RaggedAttention> ragged_attention(const RaggedRows& rows) {
  if (!fits(rows)) return std::nullopt;
  const ElementType type = element_type_of(rows.qkv, "ragged_attention");
  FlashAttentionArgs flash = flash_args(rows);
  const bool is_ours = flash_attention_fits(type, flash);
  const Graph* graph = is_ours ? nullptr : graph_of(rows, Pass::kForward);
  if (!is_ours && graph == nullptr) return std::nullopt;
  const auto y = at::empty({rows.count(), rows.heads * rows.head_size()}, rows.qkv.options()),
             sums = at::empty({rows.count(), rows.heads, 1}, rows.qkv.options().dtype(at::kFloat)),
             offsets = room_of_offsets(rows);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  if (is_ours) {
    flash.y = y.mutable_data_ptr();
    flash.sums = sums.mutable_data_ptr<float>();
    flash.offsets = offset_args(rows, offsets);
    C10_CUDA_CHECK(launch_flash_attention(type, flash, stream));
  } else {
    C10_CUDA_CHECK(launch_ragged_offsets(offset_args(rows, offsets), stream));
    run(*graph, rows, offsets, {{kOutput, y.data_ptr()}, {kSums, sums.data_ptr()}});
  }
  return RaggedAttention{y, sums, offsets};
}

std::optional<std::tuple<at::Tensor, at::Tensor, at::Tensor>> ragged_attention_backward(
    const RaggedRows& rows, const at::Tensor& grad, const RaggedAttention& made) {
  const auto& [y, sums, offsets] = made;
  FATHOM_CHECK(grad.is_contiguous() && y.is_contiguous() && sums.is_contiguous() &&
                   sums.size(0) == rows.count() && grad.scalar_type() == rows.qkv.scalar_type() &&
                   are_aligned16({y.const_data_ptr()}),
               "[ragged_attention] expected dense rows of a pass by ragged_attention");
  // cuDNN's pass has fewer products, but adds up gradients by queries in any order unless it takes far
  // longer.
  const ElementType type = element_type_of(rows.qkv, "ragged_attention");
  FlashAttentionGradArgs args = flash_grad_args(rows);
  const bool repeatable = at::globalContext().deterministicAlgorithms(),
             ours_fits = flash_attention_grad_fits(type, args);
  const Graph* graph = repeatable && ours_fits
                           ? nullptr
                           : graph_of(rows, repeatable ? Pass::kRepeatableBackward : Pass::kBackward);
  if (graph == nullptr && !ours_fits) return std::nullopt;
  const auto room = [&](int64_t heads) {
    return at::empty({rows.count(), heads, rows.head_size()}, rows.qkv.options());
  };
  auto grad_q = room(rows.heads), grad_k = room(rows.kv_heads), grad_v = room(rows.kv_heads);
  if (graph != nullptr) {
    run(*graph, rows, offsets,
        {{kOutput, y.data_ptr()},
         {kGrad, grad.data_ptr()},
         {kSums, sums.data_ptr()},
         {kGradQuery, grad_q.data_ptr()},
         {kGradKey, grad_k.data_ptr()},
         {kGradValue, grad_v.data_ptr()}});
    return std::tuple(grad_q, grad_k, grad_v);
  }
  const auto dense_grad = aligned16(grad), terms = at::empty({rows.heads, rows.count(), 2}, sums.options());
  args.pass.y = y.data_ptr();
  args.pass.sums = sums.data_ptr<float>();
  args.grad.begin = dense_grad.const_data_ptr();
  args.terms = reinterpret_cast<float2*>(terms.mutable_data_ptr<float>());
  args.q.begin = grad_q.mutable_data_ptr();
  args.k.begin = grad_k.mutable_data_ptr();
  args.v.begin = grad_v.mutable_data_ptr();
  C10_CUDA_CHECK(launch_flash_attention_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  return std::tuple(grad_q, grad_k, grad_v);
}

}  // namespace fathom::cuda
