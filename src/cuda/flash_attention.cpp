// fathom::flash_attention on a GPU: checks and registration.
#include "cuda/flash_attention.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cstdlib>
#include <tuple>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

constexpr const char* kOp = "flash_attention";

/// What the launcher is asked, results aside. Of heads [B, H, T, E].
FlashAttentionArgs args_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto rows = [](const at::Tensor& x) { return RowsOfHeads{x.const_data_ptr(), x.stride(2)}; };
  return {.q = rows(q),
          .k = rows(k),
          .v = rows(v),
          .rows = q.size(0) * q.size(2),
          .sequences = q.size(0),
          .tokens = q.size(2),
          .heads = q.size(1),
          .kv_heads = k.size(1),
          .head_size = q.size(3)};
}

/// Whether tokens' heads lie side by side, and tokens of all sequences equally far apart.
bool lies_by_tokens(const at::Tensor& x) {
  return x.stride(3) == 1 && (x.size(1) == 1 || x.stride(1) == x.size(3)) &&
         (x.size(0) == 1 || x.stride(0) == x.size(2) * x.stride(2));
}

/// As `args_of`, of the backward pass.
FlashAttentionGradArgs grad_args_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  FlashAttentionGradArgs args = {.pass = args_of(q, k, v)};
  args.grad.stride = args.q.stride = q.size(1) * q.size(3);
  args.k.stride = args.v.stride = k.size(1) * k.size(3);
  return args;
}

bool is_hopper(const at::Tensor& x) {
  return at::cuda::getDeviceProperties(x.device().index())->major == 9;
}

/// cuDNN's backward pass has fewer products than ours, but adds up gradients by queries in any order.
bool cudnn_takes_gradients(const at::Tensor& q, const at::Tensor& k) {
  // With this LibTorch expects sums that its own forward pass lays otherwise.
  static const bool lays_otherwise = std::getenv("TORCH_CUDNN_SDPA_AVOID_RECOMPILE") != nullptr;
  return !lays_otherwise && q.size(1) == k.size(1) && q.size(2) > 1 &&
         !at::globalContext().deterministicAlgorithms();
}

bool fits(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool learns) {
  const auto type = q.scalar_type();
  if ((type != at::kHalf && type != at::kBFloat16) || !is_hopper(q)) return false;
  for (const at::Tensor* x : {&q, &k, &v})
    if (!lies_by_tokens(*x)) return false;
  const ElementType element = element_type_of(q, kOp);
  if (!flash_attention_fits(element, args_of(q, k, v))) return false;
  return !learns || cudnn_takes_gradients(q, k) || flash_attention_grad_fits(element, grad_args_of(q, k, v));
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                           bool causal) {
  const c10::cuda::CUDAGuard guard(q.device());
  FATHOM_CHECK(fits(q, k, v, /*learns=*/false), "[{}] expected what has_flash_attention accepts", kOp);
  const auto y_BTHE = at::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, q.options());
  const auto sums_BHT = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
  FlashAttentionArgs args = args_of(q, k, v);
  args.y = y_BTHE.mutable_data_ptr();
  args.sums = sums_BHT.mutable_data_ptr<float>();
  args.causal = causal;
  C10_CUDA_CHECK(launch_flash_attention(element_type_of(q, kOp), args, c10::cuda::getCurrentCUDAStream()));
  return {y_BTHE.transpose(1, 2), sums_BHT};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& q,
                                                        const at::Tensor& k, const at::Tensor& v,
                                                        const at::Tensor& y, const at::Tensor& sums_BHT,
                                                        bool causal) {
  const c10::cuda::CUDAGuard guard(q.device());
  const ElementType type = element_type_of(q, kOp);
  // LibTorch keeps a graph by the layouts of queries, keys and values alone, so the gradient has always
  // theirs.
  const auto rows_of = [](const at::Tensor& x) { return aligned16(x.transpose(1, 2)); };
  const auto grad_BTHE = rows_of(grad);
  if (cudnn_takes_gradients(q, k)) {
    const at::Tensor none;
    return at::_scaled_dot_product_cudnn_attention_backward(
        grad_BTHE.transpose(1, 2), q, k, v, y, sums_BHT.unsqueeze(-1), /*philox_seed=*/none,
        /*philox_offset=*/none,
        /*attn_bias=*/none, /*cum_seq_q=*/none, /*cum_seq_k=*/none, q.size(2), k.size(2), /*dropout_p=*/0.0,
        causal);
  }
  FlashAttentionGradArgs args = grad_args_of(q, k, v);
  const auto y_BTHE = rows_of(y), sums = sums_BHT.contiguous();
  FATHOM_CHECK(
      lies_by_tokens(q) && lies_by_tokens(k) && lies_by_tokens(v) && flash_attention_grad_fits(type, args),
      "[{}] has a backward pass for heads of 64 here, got {}", kOp, q.size(3));
  FATHOM_CHECK(grad.sizes() == q.sizes() && y.sizes() == q.sizes() && grad.scalar_type() == q.scalar_type() &&
                   y.scalar_type() == q.scalar_type() && sums.numel() == q.numel() / q.size(3) &&
                   sums.scalar_type() == at::kFloat,
               "[{}] expected a result, its sums and its gradient", kOp);
  const auto room = [](const at::Tensor& x) {
    return at::empty({x.size(0), x.size(2), x.size(1), x.size(3)}, x.options());
  };
  const auto grad_q = room(q), grad_k = room(k), grad_v = room(v);
  const auto terms = at::empty({sums.numel(), 2}, sums.options());
  args.pass.causal = causal;
  args.pass.y = y_BTHE.data_ptr();
  args.pass.sums = sums.data_ptr<float>();
  args.grad.begin = grad_BTHE.const_data_ptr();
  args.terms = reinterpret_cast<float2*>(terms.mutable_data_ptr<float>());
  args.q.begin = grad_q.mutable_data_ptr();
  args.k.begin = grad_k.mutable_data_ptr();
  args.v.begin = grad_v.mutable_data_ptr();
  C10_CUDA_CHECK(launch_flash_attention_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  return {grad_q.transpose(1, 2), grad_k.transpose(1, 2), grad_v.transpose(1, 2)};
}

}  // namespace

void register_flash_attention(torch::Library& library) {
  library.impl("flash_attention", forward);
  library.impl("flash_attention_backward", backward);
  library.impl("flash_attention_fits", fits);
}

}  // namespace fathom::cuda
