// fathom::shifted_window_attention on a GPU: checks and registration.
#include "cuda/shifted_window_attention.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "cuda/rows_of.h"
#include "cuda/sum_of_parts.h"

namespace fathom::cuda {
namespace {

constexpr const char* kOp = "shifted_window_attention";

/// `out` and `chosen` are left empty.
ShiftedWindowArgs make_args(const at::Tensor& qkv, const at::Tensor& bias, int64_t side, int64_t shift) {
  FATHOM_CHECK(
      qkv.dim() == 4 && bias.dim() == 3 && bias.size(0) > 0 && side > 0 && shift >= 0 && shift < side &&
          bias.size(1) == side * side && bias.size(2) == side * side,
      "[{0}] expected [B, height, width, D], a bias [H, {1}, {1}] and 0 <= shift < side = {2}, got {3} and "
      "{4} dimensions, shift {5}",
      kOp, side * side, side, qkv.dim(), bias.dim(), shift);
  FATHOM_CHECK(
      qkv.device() == bias.device() && (qkv.scalar_type() == at::kHalf || qkv.scalar_type() == at::kBFloat16),
      "[{}] expected half or bfloat16 on the bias's device, got {} on {}", kOp,
      c10::toString(qkv.scalar_type()), qkv.device().str());
  const int64_t heads = bias.size(0);
  FATHOM_CHECK(qkv.size(3) == 3 * heads * kShiftedWindowHeadSize && side * side <= kShiftedWindowMaxPlaces &&
                   qkv.size(1) % side == 0 && qkv.size(2) % side == 0,
               "[{}] expected heads of {} and windows of at most {} places that divide the map", kOp,
               kShiftedWindowHeadSize, kShiftedWindowMaxPlaces);
  FATHOM_CHECK(qkv.numel() / qkv.size(3) <= std::numeric_limits<int>::max(),
               "[{}] expected fewer than 2^31 places", kOp);
  return {.qkv = qkv.const_data_ptr(),
          .bias = bias.const_data_ptr<float>(),
          .out = nullptr,
          .images = qkv.size(0),
          .height = static_cast<int>(qkv.size(1)),
          .width = static_cast<int>(qkv.size(2)),
          .heads = static_cast<int>(heads),
          .side = static_cast<int>(side),
          .shift = static_cast<int>(shift),
          .scale = 1.0f / std::sqrt(static_cast<float>(kShiftedWindowHeadSize))};
}

/// Whether blocks find room on the card of `x`.
bool fits(const at::Tensor& x, int64_t side, int64_t shift, bool learns) {
  ShiftedWindowArgs args = {};
  args.side = static_cast<int>(side);
  args.shift = static_cast<int>(shift);
  const int64_t bytes =
      learns ? std::max(shifted_window_shared_bytes(args), shifted_window_backward_shared_bytes(args))
             : shifted_window_shared_bytes(args);
  return bytes <=
         static_cast<int64_t>(at::cuda::getDeviceProperties(x.device().index())->sharedMemPerBlockOptin);
}

void check_room(const at::Tensor& x, int64_t side, int64_t shift, bool learns) {
  FATHOM_CHECK(fits(x, side, shift, learns), "[{}] expected a card with more shared memory for windows of {}",
               kOp, side);
}

/// Of whole maps, or of windows that were `chosen`, as maps of one window each. Result: like qkv, a third as
/// wide.
at::Tensor attention(const at::Tensor& qkv, const at::Tensor& bias_in, int64_t side, int64_t shift,
                     const WindowPlaces& chosen) {
  const auto bias = bias_in.to(at::kFloat).contiguous();
  ShiftedWindowArgs args = make_args(qkv, bias, side, shift);
  check_room(qkv, side, shift, false);
  auto out = at::empty({qkv.size(0), qkv.size(1), qkv.size(2), qkv.size(3) / 3}, qkv.options());
  args.out = out.mutable_data_ptr();
  args.chosen = chosen;
  if (qkv.numel() > 0)
    C10_CUDA_CHECK(
        launch_shifted_window_attention(element_type_of(qkv, kOp), args, c10::cuda::getCurrentCUDAStream()));
  return out;
}

std::tuple<at::Tensor, at::Tensor> attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                                      const at::Tensor& bias_in, int64_t side, int64_t shift,
                                                      const WindowPlaces& chosen) {
  const auto bias = bias_in.to(at::kFloat).contiguous();
  FATHOM_CHECK(grad.dim() == 4 && grad.scalar_type() == qkv.scalar_type() && grad.device() == qkv.device() &&
                   grad.numel() * 3 == qkv.numel(),
               "[{}] expected a gradient like the result", kOp);
  ShiftedWindowBackwardArgs args = {.forward = make_args(qkv, bias, side, shift)};
  check_room(qkv, side, shift, true);
  args.forward.chosen = chosen;
  args.blocks = shifted_window_blocks(args.forward);
  auto grad_qkv = at::empty_like(qkv);
  auto partial = at::empty({args.blocks, bias.size(0), bias.size(1), bias.size(2)}, bias.options());
  args.grad = grad.const_data_ptr();
  args.grad_qkv = grad_qkv.mutable_data_ptr();
  args.partial = partial.mutable_data_ptr<float>();
  C10_CUDA_CHECK(launch_shifted_window_attention_backward(element_type_of(qkv, kOp), args,
                                                          c10::cuda::getCurrentCUDAStream()));
  return {grad_qkv, sum_of_parts(partial, bias_in.scalar_type())};
}

at::Tensor forward(const at::Tensor& qkv, const at::Tensor& bias, int64_t side, int64_t shift) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  return attention(aligned16(qkv), bias, side, shift, {});
}

std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& qkv,
                                            const at::Tensor& bias, int64_t side, int64_t shift) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  return attention_backward(aligned16(grad), aligned16(qkv), bias, side, shift, {});
}

/// Of rows [N, D] of windows that were chosen, one behind the other.
at::Tensor as_windows(const at::Tensor& rows, int64_t side) {
  FATHOM_CHECK(rows.dim() == 2 && rows.size(0) % (side * side) == 0,
               "[counted_window_attention] expected rows of windows of {}, got {}", side * side,
               rows.size(0));
  return aligned16(rows).view({-1, side, side, rows.size(1)});
}

WindowPlaces places_of(const at::Tensor& place, const at::Tensor& start, int64_t height, int64_t width) {
  const RowsArgs rows = rows_of(place, start);
  FATHOM_CHECK(rows.tokens == height * width, "[counted_window_attention] expected rows of maps of {} × {}",
               height, width);
  return {rows.place, count_of(start), static_cast<int>(height), static_cast<int>(width)};
}

at::Tensor chosen_forward(const at::Tensor& qkv, const at::Tensor& bias, const at::Tensor& place,
                          const at::Tensor& start, int64_t height, int64_t width, int64_t side,
                          int64_t shift) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  return attention(as_windows(qkv, side), bias, side, shift, places_of(place, start, height, width))
      .view({qkv.size(0), qkv.size(1) / 3});
}

std::tuple<at::Tensor, at::Tensor> chosen_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                                   const at::Tensor& bias, const at::Tensor& place,
                                                   const at::Tensor& start, int64_t height, int64_t width,
                                                   int64_t side, int64_t shift) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  auto [grad_qkv, grad_bias] = attention_backward(as_windows(grad, side), as_windows(qkv, side), bias, side,
                                                  shift, places_of(place, start, height, width));
  return {grad_qkv.view_as(qkv), grad_bias};
}

}  // namespace

void register_shifted_window_attention(torch::Library& library) {
  library.impl("shifted_window_attention", forward);
  library.impl("shifted_window_attention_backward", backward);
  library.impl("counted_window_attention", chosen_forward);
  library.impl("counted_window_attention_backward", chosen_backward);
  library.impl("shifted_window_attention_fits", fits);
}

}  // namespace fathom::cuda
