// Our kernels as implementations of the op library `fathom` on CUDA.
#pragma once

#include <string>

namespace torch {
class Library;
}

namespace fathom::cuda {

void register_adamw_step(torch::Library& library);
void register_embedding(torch::Library& library);
void register_flash_attention(torch::Library& library);
void register_half_product(torch::Library& library);
void register_keyed_dropout(torch::Library& library);
void register_layer_norm(torch::Library& library);
void register_linear_gelu(torch::Library& library);
void register_linear_swiglu(torch::Library& library);
void register_local_mixing(torch::Library& library);
void register_residual_layer_norm(torch::Library& library);
void register_residual_rms_norm(torch::Library& library);
void register_rope_heads(torch::Library& library);
void register_row_scores(torch::Library& library);
void register_saturated_half(torch::Library& library);
void register_scale(torch::Library& library);
void register_swiglu(torch::Library& library);
void register_shifted_window_attention(torch::Library& library);
void register_column_sum(torch::Library& library);
void register_counted_rows(torch::Library& library);
void register_counted_gradients(torch::Library& library);
void register_counted_layers(torch::Library& library);
void register_fp8_tiles(torch::Library& library);
void register_token_choice(torch::Library& library);
void register_decode_layers(torch::Library& library);
void register_softmax_cross_entropy(torch::Library& library);

/// Registers all of them, once, if the current card can run the code in this plug-in; otherwise the plain
/// references run. Returns why not, or nothing.
std::string register_kernels();

}  // namespace fathom::cuda
