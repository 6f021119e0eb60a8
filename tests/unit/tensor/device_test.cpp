#include "tensor/device.h"

#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "tensor/device_runtime.h"

namespace fathom::device_test {
namespace {

using testing::HasSubstr;

std::string message_of(const std::string& name, int64_t local_rank = 0) {
  try {
    select_device(name, local_rank);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    return error.what();
  }
  return "no error";
}

TEST(SelectDevice, KnowsTheCpu) {
  EXPECT_EQ(select_device("cpu"), at::Device(at::kCPU));
}

TEST(SelectDevice, RefusesUnknownNames) {
  for (const char* name : {"gpu", "", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cpu:0"}) {
    EXPECT_THAT(message_of(name), HasSubstr("is unknown (auto, cpu, cuda, cuda:N)")) << name;
  }
}

TEST(SelectDevice, SaysWhyThereIsNoGpu) {
  const CudaAvailability cuda = cuda_availability();
  if (cuda.num_devices > 0) GTEST_SKIP() << "there is a GPU";
  EXPECT_FALSE(cuda.reason.empty());
  EXPECT_THAT(message_of("cuda"), HasSubstr("no CUDA device: " + cuda.reason));
  EXPECT_THAT(message_of("cuda:3"), HasSubstr("no CUDA device: "));
  EXPECT_EQ(select_device("auto"), at::Device(at::kCPU));
}

TEST(SelectDevice, CountsTheGpus) {
  const CudaAvailability cuda = cuda_availability();
  if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
  EXPECT_EQ(select_device("auto"), at::Device(at::kCUDA, 0));
  EXPECT_THAT(message_of("cuda", cuda.num_devices), HasSubstr("one process per GPU"));
}

TEST(CpuRuntime, CountsMemory) {
  auto runtime = make_device_runtime(at::kCPU);
  EXPECT_FALSE(runtime->name().empty());
  const DeviceMemory before = runtime->memory();
  EXPECT_GT(before.total_bytes, before.used_bytes);
  constexpr int64_t kBytes = 64 << 20;
  {
    const at::Tensor block = at::ones({kBytes}, at::kByte);
    EXPECT_GE(runtime->memory().used_bytes, before.used_bytes + kBytes / 2);
  }
  runtime->release_cached_memory();
  EXPECT_GE(runtime->memory().peak_bytes, before.used_bytes + kBytes / 2);
  EXPECT_LT(runtime->memory().used_bytes, before.used_bytes + kBytes / 2);
}

TEST(CpuRuntime, MeasuresItsPeak) {
  auto runtime = make_device_runtime(at::kCPU);
  const double flops = runtime->peak_flops(at::kFloat);
  EXPECT_GT(flops, 1e8);
  EXPECT_LT(flops, 1e15);
  EXPECT_EQ(runtime->peak_flops(at::kFloat), flops);  // measured once
  EXPECT_EQ(runtime->peak_flops(at::kLong), 0);
  EXPECT_TRUE(runtime->is_fast(at::kFloat));
  EXPECT_EQ(runtime->make_graph(), nullptr);
  EXPECT_EQ(runtime->pinned_empty({2, 3}, at::kHalf).sizes(), at::IntArrayRef({2, 3}));
}

}  // namespace
}  // namespace fathom::device_test
