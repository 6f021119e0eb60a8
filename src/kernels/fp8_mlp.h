// down(silu(gate(x)) · up(x)) of operands in FP8.
#pragma once

#include "kernels/fp8_linear.h"

namespace fathom::kernels {

/// `swiglu` of a bfloat16 matrix [R, 2M], in E4M3 (`fp8_tiles`): [R, M] without a pass that reads it again.
Fp8Pair fp8_swiglu(const at::Tensor& gate_up_RC, const Fp8Wish& wish, const at::Tensor& beyond = {});
/// Its gradient by `gate_up_RC`, [R, 2M], of that by its result, bfloat16 [R, M]. REQUIRES that M is a
/// multiple of `kFp8Tile`.
Fp8Pair fp8_swiglu_backward(const at::Tensor& grad_RM, const at::Tensor& gate_up_RC, const Fp8Wish& wish,
                            const at::Tensor& beyond = {});

/// Whether both products are multiplied in FP8 and the inner width is a multiple of `kFp8Tile`.
bool is_fp8_mlp(const at::Tensor& x, const at::Tensor& gate_up, const at::Tensor& down,
                const Fp8Products& products);

/// `x`: bfloat16 [..., D]; `gate_up`: float32 [2M, D], gate first; `down`: float32 [D, M]. The numbers of two
/// `fp8_linear` with `swiglu` between them: but what lies between is written in FP8 alone. REQUIRES
/// `is_fp8_mlp`.
at::Tensor fp8_mlp(const at::Tensor& x, const at::Tensor& gate_up, const at::Tensor& down,
                   const Fp8Products& products, GradientRooms* rooms);

}  // namespace fathom::kernels
