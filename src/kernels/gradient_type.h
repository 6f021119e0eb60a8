// In which type gradients come back, where that is another than the result's: LibTorch's engine casts each
// gradient to what its function's result lets it expect, and rounds it once more.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace fathom::kernels {

/// The type in which what made `x` takes its gradient; nothing: any. Of a parameter, x's own.
inline std::optional<at::ScalarType> gradient_type(const at::Tensor& x) {
  const auto& made_by = x.grad_fn();
  return made_by ? made_by->input_metadata(x.output_nr()).grad_dtype() : x.scalar_type();
}

/// Lets gradients of `x`, a result of an autograd function of ours, come in `type`; nothing: in any.
inline void take_gradients_in(const at::Tensor& x, std::optional<at::ScalarType> type) {
  if (const auto& made_by = x.grad_fn()) made_by->mutable_input_metadata(x.output_nr()).set_grad_dtype(type);
}

}  // namespace fathom::kernels
