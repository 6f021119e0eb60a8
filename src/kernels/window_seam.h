// The mask of shifted windows, for whatever computes it: tensors, references, and kernels on raw pointers.
#pragma once

namespace fathom::kernels {

/// Added to the score of two places of a window that the shift joined. Source: the authors' code of Liu et
/// al., "Swin Transformer", 2021, whose models were trained with it.
constexpr float kSeamScore = -100.0F;

}  // namespace fathom::kernels
