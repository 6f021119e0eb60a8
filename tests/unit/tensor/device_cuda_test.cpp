// The CUDA plug-in's runtime. Skipped where it finds no GPU.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"
#include "tensor/side_stream.h"

namespace fathom::device_cuda_test {
namespace {

class CudaRuntime : public testing::Test {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
    device_ = select_device("cuda:0");
    runtime_ = make_device_runtime(device_);
  }

  at::Device device_ = at::kCPU;
  std::unique_ptr<DeviceRuntime> runtime_;
};

TEST_F(CudaRuntime, CountsMemory) {
  constexpr int64_t kBytes = 64 << 20;
  const int64_t before = runtime_->memory().used_bytes;
  runtime_->reset_peak_memory();
  {
    const at::Tensor block = at::ones({kBytes}, at::TensorOptions(device_).dtype(at::kByte));
    EXPECT_EQ(runtime_->memory().used_bytes, before + kBytes);
  }
  EXPECT_EQ(runtime_->memory().used_bytes, before);
  EXPECT_GE(runtime_->memory().peak_bytes, before + kBytes);
  EXPECT_GT(runtime_->memory().total_bytes, kBytes);
  runtime_->release_cached_memory();
}

TEST_F(CudaRuntime, CopiesFromPinnedMemory) {
  at::Tensor host = runtime_->pinned_empty({1000}, at::kFloat);
  EXPECT_TRUE(host.is_pinned());
  host.fill_(3);
  const at::Tensor copy = host.to(device_, /*non_blocking=*/true);
  runtime_->synchronize();
  EXPECT_EQ(copy.sum().item<float>(), 3000.0f);
}

TEST_F(CudaRuntime, ReplaysACapturedGraph) {
  const auto options = at::TensorOptions(device_).dtype(at::kFloat);
  const at::Tensor input = at::ones({8}, options);
  at::Tensor output = at::zeros({8}, options);
  const auto work = [&] { output.copy_(input.mul(2).add(1)); };
  work();
  auto graph = runtime_->make_graph();
  ASSERT_NE(graph, nullptr);
  EXPECT_THROW(graph->replay(), Error);
  graph->capture(work);
  input.copy_(at::arange(8, options));
  graph->replay();
  EXPECT_TRUE(at::equal(output.cpu(), at::arange(8, at::kFloat).mul(2).add(1)));
  EXPECT_THROW(graph->capture(work), Error);
}

constexpr int64_t kSide = 1024;

/// Writes `value` to `result`, aside, at length, and reads what is free again when this returns.
void write_aside(SideStream& side, at::Tensor result, double value) {
  const at::Tensor x = at::full({kSide, kSide}, value, result.options()), turn = at::eye(kSide, x.options());
  side.run(
      [&, x, turn] {
        at::Tensor product = x;
        for (int j = 0; j < 8; ++j) product = product.mm(turn);
        result.copy_(product.mean());
      },
      {x, turn});
}

/// Each turn's work aside is long, and reads what the next turn's takes the place of.
TEST_F(CudaRuntime, WorkAsideIsSeenAfterItIsJoined) {
  constexpr int64_t kTurns = 8;
  const auto options = at::TensorOptions(device_).dtype(at::kFloat);
  SideStream side(device_);
  const at::Tensor sums = at::zeros({kTurns}, options);
  const auto work = [&] {
    for (int64_t i = 0; i < kTurns; ++i) {
      write_aside(side, sums.select(0, i), static_cast<double>(i));
      at::full({kSide, kSide}, -1, options);  // would lie where x did
      if (i % 3 == 2) side.join();
    }
    side.join();
  };
  const at::Tensor expected = at::arange(kTurns, at::kFloat);
  work();
  EXPECT_TRUE(at::equal(sums.cpu(), expected));
  const auto graph = runtime_->make_graph();
  graph->capture(work);
  sums.fill_(7);
  graph->replay();
  EXPECT_TRUE(at::equal(sums.cpu(), expected));
}

/// While the latest may still run.
TEST_F(CudaRuntime, FormerWorkAsideIsSeenAfterItIsJoined) {
  constexpr int64_t kTurns = 8;
  const auto options = at::TensorOptions(device_).dtype(at::kFloat);
  SideStream side(device_);
  const at::Tensor sums = at::zeros({kTurns}, options), seen = at::zeros({kTurns}, options);
  const auto work = [&] {
    for (int64_t i = 0; i < kTurns; ++i) {
      write_aside(side, sums.select(0, i), static_cast<double>(i));
      side.join_former();
      at::full({kSide, kSide}, -1, options);  // would lie where x did
      if (i > 0) seen.select(0, i - 1).copy_(sums.select(0, i - 1));
    }
    side.join();
    seen.select(0, kTurns - 1).copy_(sums.select(0, kTurns - 1));
  };
  const at::Tensor expected = at::arange(kTurns, at::kFloat);
  const auto graph = runtime_->make_graph();
  work();
  EXPECT_TRUE(at::equal(seen.cpu(), expected));
  graph->capture(work);
  sums.fill_(7);
  graph->replay();
  EXPECT_TRUE(at::equal(seen.cpu(), expected));
}

TEST(SideStream, IsOfADeviceWithStreams) {
  EXPECT_THROW(SideStream(at::kCPU), Error);
}

TEST_F(CudaRuntime, PassesOnWhatGoesWrongInACapture) {
  auto graph = runtime_->make_graph();
  EXPECT_THROW(graph->capture([] { fail(ErrorKind::kInternal, "in the middle"); }), Error);
  runtime_->synchronize();
  EXPECT_EQ(at::ones({2}, at::TensorOptions(device_)).sum().item<float>(), 2.0f);  // the device still works
}

TEST_F(CudaRuntime, KnowsItsPeak) {
  EXPECT_FALSE(runtime_->name().empty());
  EXPECT_EQ(runtime_->peak_flops(at::kLong), 0);
  if (runtime_->name().find("H100") != std::string::npos) {
    EXPECT_GT(runtime_->peak_flops(at::kBFloat16), 7e14);
    EXPECT_GT(runtime_->peak_flops(at::kBFloat16), runtime_->peak_flops(at::kFloat));
    EXPECT_TRUE(runtime_->is_fast(at::kBFloat16));
  }
}

}  // namespace
}  // namespace fathom::device_cuda_test
