// A device with our kernels registered; tests are skipped where there is none.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "tensor/device.h"
#include "tensor/device_runtime.h"

namespace fathom::cuda_test {

class CudaKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
    device_ = select_device("cuda:0");
    runtime_ = make_device_runtime(device_);  // registers the kernels
    ASSERT_EQ(runtime_->missing_kernels(), "");
  }
  at::Device device_ = at::kCPU;
  std::unique_ptr<DeviceRuntime> runtime_;
};

}  // namespace fathom::cuda_test
