// fathom::rope_heads on a GPU: checks and registration. Each token's heads lie together in the results, so
// that they do in attention's, which the next product takes as rows; their gradients come back the same way.
#include "cuda/rope_heads.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>
#include <tuple>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

HeadsPlace place_of(const at::Tensor& heads) {
  return {const_cast<void*>(heads.const_data_ptr()), heads.stride(0), heads.stride(1), heads.stride(2)};
}

RopeHeadsArgs rope_args(const at::Tensor& packed, const Three& heads_BHTE, const at::Tensor& cos_TF,
                        const at::Tensor& sin_TF) {
  const auto& [q, k, v] = heads_BHTE;
  FATHOM_CHECK(cos_TF.scalar_type() == at::kFloat && cos_TF.is_contiguous() && sin_TF.is_contiguous() &&
                   cos_TF.device() == packed.device() && sin_TF.device() == packed.device() &&
                   cos_TF.sizes() == sin_TF.sizes() && cos_TF.numel() == q.size(2) * (q.size(3) / 2) &&
                   sin_TF.scalar_type() == at::kFloat,
               "[rope_heads] expected dense float32 angles of {} tokens on {}", q.size(2),
               packed.device().str());
  FATHOM_CHECK(q.size(0) * q.size(2) < std::numeric_limits<int32_t>::max() &&
                   packed.size(2) < std::numeric_limits<int32_t>::max() / 2,
               "[rope_heads] expected fewer than 2^31 tokens of 2^30 numbers");
  return {.packed = const_cast<void*>(packed.const_data_ptr()),
          .q = place_of(q),
          .k = place_of(k),
          .v = place_of(v),
          .cos = cos_TF.const_data_ptr<float>(),
          .sin = sin_TF.const_data_ptr<float>(),
          .rows = q.size(0) * q.size(2),
          .tokens = q.size(2),
          .heads = q.size(1),
          .kv_heads = k.size(1),
          .head_size = q.size(3)};
}

/// `keys`, `values`: where these are written besides, or undefined.
Three heads_of(const at::Tensor& qkv_in, const at::Tensor& cos_TF, const at::Tensor& sin_TF, int64_t heads,
               int64_t kv_heads, const at::Tensor& keys, const at::Tensor& values) {
  const c10::cuda::CUDAGuard guard(qkv_in.device());
  const auto qkv = qkv_in.contiguous(), cos = cos_TF.contiguous(), sin = sin_TF.contiguous();
  const int64_t batch = qkv.size(0), tokens = qkv.size(1), slots = heads + 2 * kv_heads;
  FATHOM_CHECK(heads >= 0 && kv_heads >= 0 && slots > 0 && qkv.dim() == 3 && qkv.size(2) % (2 * slots) == 0,
               "[rope_heads] expected [B, T, {} heads of even size]", slots);
  const auto apart = [&](int64_t count) {
    return at::empty({batch, tokens, count, qkv.size(2) / slots}, qkv.options()).transpose(1, 2);
  };
  Three result = {apart(heads), apart(kv_heads), apart(kv_heads)};
  if (qkv.numel() == 0) return result;
  RopeHeadsArgs args = rope_args(qkv, result, cos, sin);
  const auto is_like = [&](const at::Tensor& t) {
    return t.defined() && t.scalar_type() == qkv.scalar_type() && t.device() == qkv.device();
  };
  const bool keeps = is_like(keys) && is_like(values);
  if (keeps) args.kept_k = place_of(keys), args.kept_v = place_of(values);
  C10_CUDA_CHECK(
      launch_rope_heads(element_type_of(qkv, "rope_heads"), args, c10::cuda::getCurrentCUDAStream()));
  if (keys.defined() && !keeps) {
    keys.copy_(std::get<1>(result));
    values.copy_(std::get<2>(result));
  }
  return result;
}

Three forward(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, int64_t heads,
              int64_t kv_heads) {
  return heads_of(qkv, cos_TF, sin_TF, heads, kv_heads, {}, {});
}

at::Tensor with_dense_rows(const at::Tensor& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

at::Tensor backward(const at::Tensor& grad_q, const at::Tensor& grad_k, const at::Tensor& grad_v,
                    const at::Tensor& cos_TF, const at::Tensor& sin_TF) {
  const c10::cuda::CUDAGuard guard(grad_q.device());
  FATHOM_CHECK(grad_q.dim() == 4 && grad_k.dim() == 4 && grad_v.sizes() == grad_k.sizes() &&
                   grad_k.size(0) == grad_q.size(0) && grad_k.size(2) == grad_q.size(2) &&
                   grad_k.size(3) == grad_q.size(3) && grad_k.scalar_type() == grad_q.scalar_type() &&
                   grad_v.scalar_type() == grad_q.scalar_type() && grad_k.device() == grad_q.device() &&
                   grad_v.device() == grad_q.device(),
               "[rope_heads] expected gradients [B, heads, T, E] of one type");
  const auto cos = cos_TF.contiguous(), sin = sin_TF.contiguous();
  const Three grads = {with_dense_rows(grad_q), with_dense_rows(grad_k), with_dense_rows(grad_v)};
  const int64_t slots = grad_q.size(1) + 2 * grad_k.size(1);
  auto result = at::empty({grad_q.size(0), grad_q.size(2), slots * grad_q.size(3)}, grad_q.options());
  if (result.numel() == 0) return result;
  const RopeHeadsArgs args = rope_args(result, grads, cos, sin);
  C10_CUDA_CHECK(
      launch_rope_heads_grad(element_type_of(result, "rope_heads"), args, c10::cuda::getCurrentCUDAStream()));
  return result;
}

}  // namespace

void register_rope_heads(torch::Library& library) {
  library.impl("rope_heads", forward);
  library.impl("rope_heads_kept", heads_of);
  library.impl("rope_heads_backward", backward);
}

}  // namespace fathom::cuda
