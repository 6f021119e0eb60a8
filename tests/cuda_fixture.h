// A device with our kernels registered; tests are skipped where there is none.
#pragma once

#include <gtest/gtest.h>

#include "tensor/device.h"
#include "tensor/device_runtime.h"

namespace fathom::cuda_test {

class CudaKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
    device_ = select_device("cuda:0");
    const auto runtime = make_device_runtime(device_);  // registers the kernels
    ASSERT_EQ(runtime->missing_kernels(), "");
  }
  at::Device device_ = at::kCPU;
};

}  // namespace fathom::cuda_test
