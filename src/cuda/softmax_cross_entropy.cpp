// fathom::softmax_cross_entropy on a GPU: checks and registration.
#include "cuda/softmax_cross_entropy.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>
#include <optional>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

constexpr const char* kCrossEntropy = "softmax_cross_entropy";

at::Tensor softmax_cross_entropy(const at::Tensor& logits, const at::Tensor& target_in,
                                 const std::optional<at::Tensor>& gradient, double gradient_scale,
                                 const std::optional<at::Tensor>& divisor) {
  const c10::cuda::CUDAGuard guard(logits.device());
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  FATHOM_CHECK(logits.dim() == 2 && logits.is_contiguous() && logits.size(0) <= kMost &&
                   logits.size(1) <= kMost && target_in.numel() == logits.size(0) &&
                   (!gradient || (gradient->is_contiguous() && gradient->sizes() == logits.sizes())),
               "[softmax_cross_entropy] expected dense logits, their targets, and room for their gradient");
  const at::Tensor target = target_in.contiguous();
  const ElementType type = element_type_of(logits, kCrossEntropy);
  const at::Tensor loss = at::empty(
      {logits.size(0)}, logits.options().dtype(type == ElementType::kDouble ? at::kDouble : at::kFloat));
  FATHOM_CHECK(!divisor || divisor->scalar_type() == loss.scalar_type(),
               "[softmax_cross_entropy] expected a divisor of the losses' type");
  if (logits.numel() == 0) return loss;
  const SoftmaxCrossEntropyArgs args = {
      .logits = logits.const_data_ptr(),
      .target = target.const_data_ptr<int64_t>(),
      .gradient = gradient ? gradient->mutable_data_ptr() : nullptr,
      .loss = loss.mutable_data_ptr(),
      .divisor = divisor ? divisor->const_data_ptr() : nullptr,
      .rows = logits.size(0),
      .vocabulary = logits.size(1),
      .gradient_scale = gradient_scale,
      .is_aligned =
          are_aligned16({logits.const_data_ptr(), gradient ? gradient->const_data_ptr() : nullptr})};
  C10_CUDA_CHECK(launch_softmax_cross_entropy(type,
                                              gradient ? element_type_of(*gradient, kCrossEntropy) : type,
                                              args, c10::cuda::getCurrentCUDAStream()));
  return loss;
}

}  // namespace

void register_softmax_cross_entropy(torch::Library& library) {
  library.impl("softmax_cross_entropy", softmax_cross_entropy);
}

}  // namespace fathom::cuda
