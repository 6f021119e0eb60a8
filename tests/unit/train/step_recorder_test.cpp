#include "train/step_recorder.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace fathom::step_recorder_test {
namespace {

/// "Records" by keeping the work, so that what is replayed can be seen on a CPU.
class KeptWork : public DeviceGraph {
 public:
  void capture(const std::function<void()>& work) override { work_ = work, work(); }
  void replay() override { work_(); }

 private:
  std::function<void()> work_;
};

class RecordingRuntime : public DeviceRuntime {
 public:
  at::Device device() const override { return at::kCPU; }
  std::string name() const override { return "recording"; }
  DeviceMemory memory() const override { return {}; }
  void reset_peak_memory() override {}
  void release_cached_memory() override {}
  void synchronize() override {}
  void activate() override {}
  at::Tensor pinned_empty(at::IntArrayRef sizes, at::ScalarType type) override {
    return at::empty(sizes, type);
  }
  double peak_flops(at::ScalarType) override { return 0; }
  bool is_fast(at::ScalarType) override { return true; }
  std::unique_ptr<DeviceGraph> make_graph(DeviceGraph*) override { return std::make_unique<KeptWork>(); }
};

std::vector<MicroBatch> inputs(int64_t tokens, int64_t value) {
  MicroBatch micro_batch{.batch = {.index_B = at::arange(2), .tokens_BT = at::full({2, tokens}, value)}};
  micro_batch.forward.key_B = at::full({2}, value);
  return {micro_batch};
}

/// Σ tokens + Σ keys, and where it was read from.
struct Work {
  const void* read_from = nullptr;
  std::vector<at::Tensor> operator()(std::span<const MicroBatch> batch) {
    read_from = batch[0].batch.tokens_BT.const_data_ptr();
    return {batch[0].batch.tokens_BT.sum() + batch[0].forward.key_B.sum()};
  }
};

int64_t run(StepRecorder& recorder, Work& work, int64_t tokens, int64_t value) {
  return recorder.run(inputs(tokens, value), std::ref(work))[0].item<int64_t>();
}

TEST(StepRecorder, ReplaysWithTheInputsOfEachStep) {
  RecordingRuntime runtime;
  StepRecorder recorder(runtime, true);
  Work work;
  for (int64_t step = 0; step < 6; ++step) EXPECT_EQ(run(recorder, work, 3, step), 6 * step + 2 * step);
  EXPECT_EQ(recorder.num_recordings(), 1);
  const void* place = work.read_from;
  run(recorder, work, 3, 9);
  EXPECT_EQ(work.read_from, place);  // the recorded work reads one place, which the inputs are copied to
}

TEST(StepRecorder, RecordsEachShapeForItself) {
  RecordingRuntime runtime;
  StepRecorder recorder(runtime, true);
  Work work;
  for (int64_t step = 0; step < 4; ++step) {
    EXPECT_EQ(run(recorder, work, 3, step), 8 * step);
    EXPECT_EQ(run(recorder, work, 5, step), 12 * step);
  }
  EXPECT_EQ(recorder.num_recordings(), 2);
  for (int64_t tokens = 6; tokens < 40; ++tokens)
    for (int64_t step = 0; step < 4; ++step)
      EXPECT_EQ(run(recorder, work, tokens, step), (2 * tokens + 2) * step);
  EXPECT_EQ(recorder.num_recordings(), 8);
}

TEST(StepRecorder, RecordsAnewWhenTheKindOfWorkChanges) {
  RecordingRuntime runtime;
  StepRecorder recorder(runtime, true);
  Work work;
  const auto sum = [&](int64_t value, int64_t kind) {
    const auto tripled = [&](std::span<const MicroBatch> batch) {
      std::vector<at::Tensor> found = work(batch);
      return kind == 1 ? std::vector<at::Tensor>{3 * found[0]} : found;
    };
    return recorder.run(inputs(3, value), tripled, kind)[0].item<int64_t>();
  };
  for (int64_t step = 0; step < 3; ++step) EXPECT_EQ(sum(step, 1), 24 * step);
  for (int64_t step = 0; step < 2; ++step) EXPECT_EQ(sum(step, 0), 8 * step);
  EXPECT_EQ(recorder.num_recordings(), 1);
  EXPECT_EQ(sum(5, 0), 40);
  EXPECT_EQ(recorder.num_recordings(), 2);
}

TEST(StepRecorder, LaunchesWorkThatWaits) {
  RecordingRuntime runtime;
  StepRecorder recorder(runtime, true);
  Work work;
  run(recorder, work, 3, 1);
  recorder.disable();
  for (int64_t step = 0; step < 5; ++step) EXPECT_EQ(run(recorder, work, 3, step), 8 * step);
  EXPECT_EQ(recorder.num_recordings(), 0);
}

TEST(StepRecorder, LaunchesWhereItIsOff) {
  RecordingRuntime runtime;
  StepRecorder recorder(runtime, false);
  Work work;
  for (int64_t step = 0; step < 5; ++step) EXPECT_EQ(run(recorder, work, 3, step), 8 * step);
  EXPECT_EQ(recorder.num_recordings(), 0);
}

}  // namespace
}  // namespace fathom::step_recorder_test
