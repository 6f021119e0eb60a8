#include "cuda/registration.h"

#include <fmt/format.h>
#include <torch/library.h>

#include "cuda/keyed_dropout.h"

namespace fathom::cuda {

std::string register_kernels() {
  if (const cudaError_t error = probe_kernel(); error != cudaSuccess) {
    (void)cudaGetLastError();
    return fmt::format("this plug-in was not built for the card ({})", cudaGetErrorString(error));
  }
  static const bool registered = [] {
    static torch::Library library(torch::Library::IMPL, "fathom", c10::DispatchKey::CUDA, __FILE__, __LINE__);
    register_adamw_step(library);
    register_embedding(library);
    register_flash_attention(library);
    register_half_product(library);
    register_keyed_dropout(library);
    register_layer_norm(library);
    register_linear_gelu(library);
    register_linear_swiglu(library);
    register_local_mixing(library);
    register_residual_layer_norm(library);
    register_residual_rms_norm(library);
    register_rope_heads(library);
    register_row_scores(library);
    register_saturated_half(library);
    register_scale(library);
    register_swiglu(library);
    register_shifted_window_attention(library);
    register_column_sum(library);
    register_counted_rows(library);
    register_counted_gradients(library);
    register_counted_layers(library);
    register_fp8_tiles(library);
    register_token_choice(library);
    register_decode_layers(library);
    register_softmax_cross_entropy(library);
    return true;
  }();
  (void)registered;
  return "";
}

}  // namespace fathom::cuda
