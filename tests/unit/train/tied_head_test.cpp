// That a step learns the same where gradients of embedding and head are written in place as where autograd
// adds them up.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda_fixture.h"
#include "distributed/data_parallel.h"
#include "gradcheck.h"
#include "step_fixture.h"
#include "train/task/language.h"

namespace fathom::tied_head_test {
namespace {

using testing::relative_error;

constexpr int64_t kRows = 6, kTokens = 12;

struct StepCase {
  const char* name;
  int64_t micro_batch = kRows;
  bool tied = true;
  std::string frozen = {};  ///< a parameter
  ForwardContext context = {};
  int64_t vocabulary = 1100;  ///< a gradient that is brought to its place at once
};

std::vector<StepCase> step_cases() {
  return {{.name = "tied"},
          {.name = "tied, small", .vocabulary = 40},
          {.name = "untied", .tied = false},
          {.name = "tied, two micro-batches", .micro_batch = 3},
          {.name = "tied, six, small", .micro_batch = 1, .vocabulary = 40},
          {.name = "untied, three", .micro_batch = 2, .tied = false},
          {.name = "frozen head", .tied = false, .frozen = "head"},
          {.name = "frozen embedding", .tied = false, .frozen = "embedding"},
          {.name = "both frozen", .frozen = "embedding"},
          {.name = "checkpoints", .micro_batch = 3, .context = {.checkpoint_blocks = true}},
          {.name = "bf16", .micro_batch = 3, .context = {.compute_dtype = at::kBFloat16}},
          {.name = "bf16, untied", .tied = false, .context = {.compute_dtype = at::kBFloat16}},
          {.name = "fp16", .context = {.compute_dtype = at::kBFloat16, .products = {.type = at::kHalf}}}};
}

Batch sentences(int64_t vocabulary) {
  torch::manual_seed(11);
  const at::Tensor often = torch::rand({kRows, kTokens}).lt(0.3);
  return {.index_B = torch::arange(kRows),
          .tokens_BT = torch::where(often, torch::full({}, vocabulary - 1),
                                    torch::randint(vocabulary, {kRows, kTokens}))};
}

LanguageModel small_model(const StepCase& of, at::Device device) {
  LanguageModel model(LanguageModelConfig{.vocab_size = of.vocabulary,
                                          .dim = 64,
                                          .layers = 1,
                                          .heads = 2,
                                          .max_positions = kTokens,
                                          .tied_head = of.tied,
                                          .dropout = 0.1});
  init_parameters(*model, 3);
  model->to(device);
  if (!of.frozen.empty()) model->named_parameters()[of.frozen].set_requires_grad(false);
  return model;
}

std::vector<MicroBatch> micro_batches(const StepCase& of, at::Device device) {
  std::vector<MicroBatch> parts = testing::split(sentences(of.vocabulary), of.micro_batch);
  for (MicroBatch& part : parts) {
    const at::Tensor key_B = part.forward.key_B.to(device);
    part.batch = to_device(std::move(part.batch), device, {});
    part.forward = of.context;
    part.forward.training = true;
    part.forward.key_B = key_B;
  }
  return parts;
}

/// Says of one parameter what became of its contributions.
class CountedRooms : public GradientRooms {
 public:
  CountedRooms(GradientReducer& reducer, at::Tensor counted)
      : reducer_(reducer), counted_(std::move(counted)) {}
  at::Tensor take(const at::Tensor& parameter) override {
    const at::Tensor place = reducer_.take(parameter);
    if (parameter.is_same(counted_) && place.defined()) ++num_lent;
    return place;
  }
  bool add(const at::Tensor& parameter, std::function<void(const at::Tensor&)> add) override {
    const bool is_added = reducer_.add(parameter, std::move(add));
    if (parameter.is_same(counted_) && is_added) ++num_added;
    return is_added;
  }
  SideStream* side() override { return reducer_.side(); }

  int64_t num_lent = 0, num_added = 0;

 private:
  GradientReducer& reducer_;
  at::Tensor counted_;
};

/// Steps of one model whose gradients lie in buckets.
class LentSteps {
 public:
  LentSteps(const StepCase& of, LanguageTask& task, at::Device device)
      : rooms(reducer_, task.parameters().front().second),
        task_(task),
        parts_(micro_batches(of, device)),
        reducer_(*solo_, task.parameters()) {
    for (MicroBatch& part : parts_) part.forward.rooms = &rooms;
  }

  void run() {
    const StepContext step{.step = 30,
                           .progress = at::full({}, 0.3, at::kDouble),
                           .global_samples = kRows,
                           .collective = *solo_,
                           .expect_last_backward = [this] { reducer_.expect_last_backward(); }};
    task_.before_step(parts_, step);
    reducer_.zero();
    task_.forward_backward(parts_, step);
    reducer_.finish();
  }
  bool lies_in_buckets(const at::Tensor& gradient) const {
    for (const at::Tensor& bucket : reducer_.buckets())
      if (gradient.is_alias_of(bucket)) return true;
    return false;
  }

  CountedRooms rooms;  ///< of the embedding

 private:
  LanguageTask& task_;
  std::unique_ptr<Collective> solo_ = make_solo_collective();
  std::vector<MicroBatch> parts_;
  GradientReducer reducer_;
};

void expect_the_same_gradients(const LentSteps& steps, LanguageTask& task,
                               const std::map<std::string, at::Tensor>& expected, const std::string& where) {
  for (const auto& [name, parameter] : task.parameters()) {
    EXPECT_EQ(expected.contains(name), parameter.requires_grad()) << where;
    if (!parameter.requires_grad()) {
      EXPECT_FALSE(parameter.grad().defined()) << where << ": " << name;
      continue;
    }
    EXPECT_GT(expected.at(name).abs().max().item<double>(), 1e-6) << where << ": " << name;
    EXPECT_LT(relative_error(parameter.grad(), expected.at(name)), 1e-5) << where << ": " << name;
    EXPECT_TRUE(steps.lies_in_buckets(parameter.grad())) << where << ": " << name;
  }
}

void expect_equal_to_autograd(const StepCase& of, at::Device device) {
  LanguageModel model = small_model(of, device);
  LanguageTask task({.model = model, .num_tokens = kTokens});
  const auto expected = testing::run_step(task, micro_batches(of, device)).gradients;
  LentSteps steps(of, task, device);
  for (int64_t step = 0; step < 2; ++step) {
    steps.run();
    expect_the_same_gradients(steps, task, expected, of.name);
  }
}

TEST(TiedHead, LearnsInPlaceWhatAutogradAddsUp) {
  for (const StepCase& of : step_cases()) expect_equal_to_autograd(of, at::kCPU);
}

TEST(TiedHead, TheEmbeddingAddsToWhatTheLossHasWritten) {
  for (const StepCase& of : {StepCase{.name = "tied"},
                             {.name = "two", .micro_batch = 3},
                             {.name = "untied", .tied = false},
                             {.name = "two", .micro_batch = 3, .tied = false}}) {
    LanguageModel model = small_model(of, at::kCPU);
    LanguageTask task({.model = model, .num_tokens = kTokens});
    ASSERT_EQ(task.parameters().front().first, "embedding");
    LentSteps steps(of, task, at::kCPU);
    steps.run();
    EXPECT_EQ(steps.rooms.num_lent, 1) << of.name;
    EXPECT_EQ(steps.rooms.num_added, kRows / of.micro_batch - (of.tied ? 0 : 1)) << of.name;
  }
}

class CudaTiedHead : public cuda_test::CudaKernels {};

TEST_F(CudaTiedHead, LearnsInPlaceWhatAutogradAddsUp) {
  for (const StepCase& of : step_cases()) expect_equal_to_autograd(of, device_);
}

TEST_F(CudaTiedHead, ARecordedStepIsALaunchedOne) {
  const auto runtime = make_device_runtime(device_);
  for (const StepCase& of : step_cases()) {
    LanguageModel model = small_model(of, device_);
    LanguageTask task({.model = model, .num_tokens = kTokens});
    const auto expected = testing::run_step(task, micro_batches(of, device_)).gradients;
    LentSteps steps(of, task, device_);
    for (int64_t step = 0; step < 2; ++step) steps.run();
    const auto graph = runtime->make_graph(nullptr);
    graph->capture([&] { steps.run(); });
    for (int64_t step = 0; step < 2; ++step) {
      for (const auto& [name, parameter] : task.parameters())
        if (parameter.requires_grad()) parameter.mutable_grad().fill_(7);  // what a step must not find
      graph->replay();
      expect_the_same_gradients(steps, task, expected, of.name);
    }
  }
}

}  // namespace
}  // namespace fathom::tied_head_test
