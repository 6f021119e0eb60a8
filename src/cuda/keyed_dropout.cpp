// fathom::keyed_dropout on a GPU: checks and registration.
#include "cuda/keyed_dropout.h"

#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cuda/element_type_of.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

at::Tensor keyed_dropout(const at::Tensor& x_in, const at::Tensor& key_B_in, int64_t stream,
                         double probability) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  FATHOM_CHECK(key_B_in.device() == x_in.device() && key_B_in.scalar_type() == at::kLong,
               "[keyed_dropout] expected int64 keys on {}, got {} on {}", x_in.device().str(),
               c10::toString(key_B_in.scalar_type()), key_B_in.device().str());
  const auto x = x_in.contiguous(), key_B = key_B_in.contiguous();
  auto y = at::empty_like(x);
  if (x.numel() == 0) return y;
  const DropoutArgs args = {.x = x.const_data_ptr(),
                            .y = y.mutable_data_ptr(),
                            .key = key_B.const_data_ptr<int64_t>(),
                            .samples = x.size(0),
                            .size = x.numel() / x.size(0),
                            .stream = stream,
                            .threshold = static_cast<uint32_t>(std::ldexp(probability, 32)),
                            .scale = 1.0 / (1.0 - probability)};
  C10_CUDA_CHECK(
      launch_keyed_dropout(element_type_of(x, "keyed_dropout"), args, c10::cuda::getCurrentCUDAStream()));
  return y;
}

}  // namespace

void register_keyed_dropout(torch::Library& library) {
  library.impl("keyed_dropout", keyed_dropout);
}

}  // namespace fathom::cuda
