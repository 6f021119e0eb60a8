// A device with products in FP8; tests are skipped where there is none.
#pragma once

#include "cuda_fixture.h"
#include "kernels/fp8_tiles.h"

namespace fathom::cuda_test {

class CudaFp8 : public CudaKernels {
 protected:
  void SetUp() override {
    CudaKernels::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!kernels::has_fp8_products(device_)) GTEST_SKIP() << "this GPU has no products in FP8";
  }
};

}  // namespace fathom::cuda_test
