#include "train/flop_counter.h"

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>

#include <string_view>

namespace fathom {
namespace {

thread_local double counted_flops = 0;

double last_sizes(const at::Tensor& x, int64_t count) {
  double product = 1;
  for (int64_t i = 1; i <= count; ++i) product *= static_cast<double>(x.size(-i));
  return product;
}

/// Of a product whose factors are inputs `first` and `first` + 1: [.., M, K] · [.., K, N].
double product_flops(c10::ArrayRef<const c10::IValue> inputs, size_t first) {
  const at::Tensor &a = inputs[first].toTensor(), &b = inputs[first + 1].toTensor();
  return 2 * last_sizes(a, a.dim()) * static_cast<double>(b.size(-1));
}

/// Of queries [B, H, T, E], keys [B, K, S, E] and values; `causal` is an input of these operations.
double attention_flops(c10::ArrayRef<const c10::IValue> inputs) {
  const at::Tensor &q = inputs[0].toTensor(), &k = inputs[1].toTensor();
  const double whole = 4 * last_sizes(q, 4) * static_cast<double>(k.size(-2));
  for (const c10::IValue& input : inputs.slice(3))
    if (input.isBool() && input.toBool()) return whole / 2;
  return whole;
}

/// Of queries [N, H, E] of sequences whose borders `start` [S + 1] says, the same for keys. Waits for the
/// device.
double packed_attention_flops(const at::Tensor& q, const at::Tensor& start, bool causal) {
  const at::Tensor length_S = start.to(at::kCPU, at::kDouble).diff();
  const double pairs = (length_S * length_S).sum().item<double>();
  return 4 * last_sizes(q, 2) * (causal ? pairs / 2 : pairs);
}

/// [N, H, E] of `counted_attention`.
at::Tensor queries_of(c10::ArrayRef<const c10::IValue> inputs) {
  const int64_t heads = inputs[1].toInt(), kv_heads = inputs[2].toInt();
  const at::Tensor& qkv = inputs[0].toTensor();
  return qkv.view({qkv.size(0), heads + 2 * kv_heads, -1}).narrow(1, 0, heads);
}

/// Of a product with a weight of so many elements, or of its gradients, for as many rows as `start` says
/// last, on a GPU; the references call aten::mm. Waits for the device.
double row_flops(double weights, const at::Tensor& start) {
  return start.is_cuda() ? 2 * weights * start[-1].item<double>() : 0;
}

/// Of x Wᵀ for a kernel of ours on a GPU; the reference calls aten::addmm.
double fused_flops(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cuda() ? 2 * static_cast<double>(x.numel()) * static_cast<double>(weight.size(0)) : 0;
}

double flops_of(std::string_view name, c10::ArrayRef<const c10::IValue> inputs) {
  if (name == "aten::mm" || name == "aten::bmm") return product_flops(inputs, 0);
  if (name == "aten::addmm" || name == "aten::baddbmm") return product_flops(inputs, 1);
  if (name == "aten::_scaled_dot_product_flash_attention_for_cpu" ||
      name == "aten::_scaled_dot_product_flash_attention" ||
      name == "aten::_scaled_dot_product_cudnn_attention" ||
      name == "aten::_scaled_dot_product_efficient_attention")
    return attention_flops(inputs);
  if (name == "fathom::flash_attention" && inputs[0].toTensor().is_cuda())  // the reference calls aten::bmm
    return attention_flops(inputs);
  if (name == "fathom::short_attention" && inputs[0].toTensor().is_cpu())  // the reference calls aten::bmm
    return attention_flops(inputs);
  if (name == "aten::_flash_attention_forward" && inputs[3].isTensor())
    return packed_attention_flops(inputs[0].toTensor(), inputs[3].toTensor(), inputs[8].toBool());
  if (name == "fathom::counted_attention" && inputs[0].toTensor().is_cuda())  // the reference calls aten::bmm
    return packed_attention_flops(queries_of(inputs), inputs[5].toTensor(), inputs[3].toBool());
  if (name == "fathom::scorer_product" && inputs[0].toTensor().is_cuda())  // the reference calls aten::mm
    return 2 * last_sizes(inputs[0].toTensor(), 3) * static_cast<double>(inputs[2].toTensor().size(0));
  if (name == "fathom::linear_gelu") return fused_flops(inputs[0].toTensor(), inputs[1].toTensor());
  if (name == "fathom::linear_swiglu") return fused_flops(inputs[0].toTensor(), inputs[1].toTensor());
  if (name == "fathom::gelu_product_grad") return fused_flops(inputs[0].toTensor(), inputs[1].toTensor().t());
  if (name == "fathom::counted_linear" || name == "fathom::counted_linear_swiglu" ||
      name == "fathom::counted_input_grad")
    return row_flops(last_sizes(inputs[1].toTensor(), 2), inputs[2].toTensor());
  if (name == "fathom::counted_linear_bias" || name == "fathom::counted_linear_gelu")
    return row_flops(last_sizes(inputs[1].toTensor(), 2), inputs[3].toTensor());
  if (name == "fathom::counted_weight_grad")
    return row_flops(last_sizes(inputs[0].toTensor(), 1) * last_sizes(inputs[1].toTensor(), 1),
                     inputs[2].toTensor());
  return 0;
}

std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& call) {
  counted_flops += flops_of(call.name(), call.inputs());
  return nullptr;
}

}  // namespace

FlopCounter::FlopCounter() {
  counted_flops = 0;
  handle_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(count).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
}

FlopCounter::~FlopCounter() {
  at::removeCallback(handle_);
}

double FlopCounter::flops() const {
  return counted_flops;
}

}  // namespace fathom
