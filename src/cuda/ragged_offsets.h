// Where the sequences of rows lie in the tensors of attention, as cuDNN asks for it: raw pointers and a
// stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fathom::cuda {

constexpr int kRaggedTensors = 3;  ///< that have an offset each

/// `start`: int32 [sequences + 1], rows before each sequence and all. Written, int32: `length` [sequences],
/// and `offset` [kRaggedTensors, sequences + 1], elements before each sequence in a tensor with so many a
/// row.
struct RaggedOffsetArgs {
  const int32_t* start = nullptr;
  int32_t* length = nullptr;
  int32_t* offset = nullptr;
  int64_t sequences = 0;
  int64_t row_elements[kRaggedTensors] = {};
};
cudaError_t launch_ragged_offsets(const RaggedOffsetArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
