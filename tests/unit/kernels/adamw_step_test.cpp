// AdamW over lists of parameters: CPU and GPU against the reference.
#include "kernels/adamw_step.h"

#include <ATen/Parallel.h>

#include <limits>
#include <string>

#include "adamw_fixture.h"
#include "base/error.h"
#include "gradcheck.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"

namespace fathom::adamw_step_test {
namespace {

using kernels::AdamWSettings;
using kernels::AdamWTable;
using kernels::AdamWTensors;
using kernels::AdamWTerms;
using testing::changed_lists;
using testing::copies_on;
using testing::first_terms;
using testing::odd_parameters;
using testing::relative_error;

constexpr AdamWSettings kUnlimited = {.beta1 = 0.9, .beta2 = 0.98, .epsilon = 1e-8, .max_norm = 0};

/// LibTorch divides gradients by a float32, which is what is left of a difference in float64.
double step_tolerance(at::ScalarType type) {
  return type == at::kHalf || type == at::kBFloat16 ? 8e-3 : 1e-5;
}

void expect_near(const AdamWTensors& got, const AdamWTensors& expected, const std::string& where) {
  const auto ours = changed_lists(got), theirs = changed_lists(expected);
  ASSERT_EQ(ours.size(), theirs.size());
  for (size_t i = 0; i < ours.size(); ++i)
    EXPECT_LT(relative_error(ours[i].cpu(), theirs[i].cpu()), step_tolerance(ours[i].scalar_type()))
        << where << ", tensor " << i << " of " << ours[i].numel();
}

/// Three steps on `device` and by the reference on the CPU; the last norm.
double expect_reference_steps(at::Device device, double max_norm, double divisor) {
  at::manual_seed(7);
  const AdamWTensors start = odd_parameters();
  const AdamWTensors ours = copies_on(start, device), theirs = copies_on(start, at::kCPU);
  AdamWTerms our_terms = first_terms(device), their_terms = first_terms(at::kCPU);
  if (divisor > 0) {
    their_terms.divisor = at::full({}, divisor, at::kFloat);
    our_terms.divisor = their_terms.divisor.to(device);
  }
  AdamWSettings settings = kUnlimited;
  settings.max_norm = max_norm;
  AdamWTable table;
  for (int step = 0; step < 3; ++step) {
    our_terms.norm = kernels::gradient_norm(ours, our_terms.divisor, table);
    their_terms.norm = kernels::adamw_step_ref::norm(
        theirs.gradients, divisor > 0 ? std::optional(their_terms.divisor) : std::nullopt, {});
    EXPECT_LT(relative_error(our_terms.norm.cpu(), their_terms.norm), 1e-6);
    kernels::adamw_step(ours, our_terms, settings, table);
    kernels::adamw_step_ref::apply(theirs, their_terms, settings);
  }
  expect_near(ours, theirs, "limit " + std::to_string(max_norm) + ", divisor " + std::to_string(divisor));
  EXPECT_EQ(our_terms.step.item<float>(), 6);
  for (size_t i = 0; i < start.gradients.size(); ++i)
    EXPECT_TRUE(at::equal(ours.gradients[i].cpu(), start.gradients[i])) << "gradients are only read";
  return our_terms.norm.item<double>();
}

TEST(AdamWStep, EqualsTheReference) {
  const double norm = expect_reference_steps(at::kCPU, 0, 0);
  EXPECT_GT(norm, 300);                                             // of some 180,000 elements
  EXPECT_NEAR(expect_reference_steps(at::kCPU, 1, 0), norm, 1e-9);  // clipped
  expect_reference_steps(at::kCPU, 1e6, 0);                         // not clipped
  EXPECT_NEAR(expect_reference_steps(at::kCPU, 0, 64), norm / 64, 1e-9);
  expect_reference_steps(at::kCPU, 1, 64);
}

/// In tensors whose vectors begin at multiples of 16 bytes and in others, at both ends.
void expect_saturated_copies(at::Device device) {
  at::manual_seed(9);
  const AdamWTensors start = odd_parameters();
  for (const at::Tensor& parameter : start.parameters) {
    if (parameter.numel() == 0) continue;
    parameter[0] = 1e6;
    parameter[-1] = -2e5;
  }
  const AdamWTensors ours = copies_on(start, device), theirs = copies_on(start, at::kCPU);
  AdamWTerms our_terms = first_terms(device), their_terms = first_terms(at::kCPU);
  their_terms.saturated = at::zeros({}, at::kLong);
  our_terms.saturated = their_terms.saturated.to(device, at::kLong, /*non_blocking=*/false, /*copy=*/true);
  AdamWTable table;
  kernels::adamw_step(ours, our_terms, kUnlimited, table);
  kernels::adamw_step_ref::apply(theirs, their_terms, kUnlimited);
  EXPECT_GT(their_terms.saturated.item<int64_t>(), 4);
  EXPECT_EQ(our_terms.saturated.item<int64_t>(), their_terms.saturated.item<int64_t>());
  for (size_t i = 0; i < ours.copies.size(); ++i) {
    const at::Tensor &copy = ours.copies[i], &parameter = ours.parameters[i];
    if (!copy.defined() || copy.scalar_type() != at::kHalf || copy.numel() == 0) continue;
    EXPECT_EQ(copy[-1].item<float>(), -65504) << i;
    EXPECT_TRUE(at::equal(copy, parameter.clamp(-65504, 65504).to(at::kFloat).to(at::kHalf))) << i;
  }
}

TEST(AdamWStep, CopiesInFp16SaturateAndAreCounted) {
  expect_saturated_copies(at::kCPU);
}

TEST(AdamWStep, TheReferenceFollowsTheFormula) {
  at::manual_seed(8);
  AdamWTensors tensors;
  testing::add_parameter(tensors, 7, {at::kDouble, at::kDouble});
  testing::add_parameter(tensors, 5, {at::kDouble, at::kDouble});
  tensors.weight_decays[0] = 0.3;
  const AdamWTensors before = copies_on(tensors, at::kCPU);
  AdamWTerms terms = first_terms(at::kCPU);
  terms.norm = at::full({}, 8.0, at::kDouble);
  terms.divisor = at::full({}, 2.0f);
  AdamWSettings settings = kUnlimited;
  settings.max_norm = 4;
  kernels::adamw_step_ref::apply(tensors, terms, settings);
  for (size_t i = 0; i < 2; ++i) {
    const at::Tensor g = before.gradients[i] / 2 * (4 / (8 + 1e-6)), m = 0.9 * before.first[i] + 0.1 * g,
                     v = 0.98 * before.second[i] + 0.02 * g * g, w = before.parameters[i];
    const double rate = 0.01 * before.learning_rate_scales[i];
    const at::Tensor deviation = (v / (1 - std::pow(0.98, 4))).sqrt() + 1e-8;
    const at::Tensor expected =
        w - rate * before.weight_decays[i] * w - rate * m / (1 - std::pow(0.9, 4)) / deviation;
    EXPECT_LT(relative_error(tensors.parameters[i], expected), 1e-7);
    EXPECT_LT(relative_error(tensors.first[i], m), 1e-6);
    EXPECT_LT(relative_error(tensors.second[i], v), 1e-6);
  }
  EXPECT_LT(relative_error(tensors.averages[1], 0.75 * before.averages[1] + 0.25 * tensors.parameters[1]),
            1e-12);
  EXPECT_TRUE(at::equal(tensors.copies[0], tensors.parameters[0].to(at::kHalf)));
}

/// All that may change, before and after a step that may change nothing.
void expect_untouched(AdamWTensors tensors, AdamWTerms terms, const std::string& where) {
  for (at::Tensor& copy : tensors.copies)
    if (copy.defined()) copy.fill_(2.0);  // whatever it is
  std::vector<at::Tensor> before;
  for (const at::Tensor& x : changed_lists(tensors)) before.push_back(x.clone());
  AdamWTable table;
  if (!terms.skip.defined()) terms.norm = kernels::gradient_norm(tensors, {}, table);
  kernels::adamw_step(tensors, terms, {0.9, 0.98, 1e-8, 1.0}, table);
  const auto after = changed_lists(tensors);
  for (size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(at::equal(after[i], before[i])) << where << ", " << i;
  EXPECT_EQ(terms.step.item<float>(), 3) << where;
}

void expect_skips(at::Device device) {
  AdamWTensors tensors = copies_on(odd_parameters(), device);
  AdamWTerms skipped = first_terms(device);
  skipped.skip = at::ones({}, at::TensorOptions(device));
  expect_untouched(tensors, skipped, "told to skip");
  for (const float planted :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const size_t list : {1u, 5u, 10u, 23u}) {
      const AdamWTensors poisoned = copies_on(tensors, device);
      poisoned.gradients[list][-1].fill_(planted);
      expect_untouched(poisoned, first_terms(device), "in gradient " + std::to_string(list));
    }
}

TEST(AdamWStep, APlantedInfinityChangesNothing) {
  expect_skips(at::kCPU);
}

TEST(AdamWStep, TheReferenceSkipsToo) {
  const AdamWTensors tensors = odd_parameters();
  std::vector<at::Tensor> before;
  for (const at::Tensor& x : changed_lists(tensors)) before.push_back(x.clone());
  AdamWTerms terms = first_terms(at::kCPU);
  terms.norm = at::full({}, std::numeric_limits<double>::infinity(), at::kDouble);
  kernels::adamw_step_ref::apply(tensors, terms, kUnlimited);
  const auto after = changed_lists(tensors);
  for (size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(at::equal(after[i], before[i])) << i;
  EXPECT_EQ(terms.step.item<float>(), 3);
}

TEST(AdamWStep, DoesNotDependOnTheNumberOfThreads) {
  const AdamWTensors start = odd_parameters();
  const int threads = at::get_num_threads();
  std::vector<std::vector<at::Tensor>> results;
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    const AdamWTensors tensors = copies_on(start, at::kCPU);
    AdamWTerms terms = first_terms(at::kCPU);
    AdamWTable table;
    terms.norm = kernels::gradient_norm(tensors, {}, table);
    kernels::adamw_step(tensors, terms, {0.9, 0.98, 1e-8, 1.0}, table);
    results.push_back(changed_lists(tensors));
    results.back().push_back(terms.norm);
  }
  at::set_num_threads(threads);
  for (size_t i = 0; i < results[0].size(); ++i) EXPECT_TRUE(at::equal(results[0][i], results[1][i])) << i;
}

TEST(AdamWStep, RefusesWhatDoesNotFit) {
  AdamWTable table;
  const auto step = [&](const AdamWTensors& tensors, const AdamWTerms& terms) {
    kernels::adamw_step(tensors, terms, kUnlimited, table);
  };
  AdamWTensors other = odd_parameters();
  other.first[1] = at::zeros({2});
  EXPECT_THROW(step(other, first_terms(at::kCPU)), Error);
  other = odd_parameters();
  other.second.back() = other.second.back().to(at::kFloat);
  EXPECT_THROW(step(other, first_terms(at::kCPU)), Error);
  other = odd_parameters();
  other.averages.pop_back();
  EXPECT_THROW(step(other, first_terms(at::kCPU)), Error);
  AdamWTerms terms = first_terms(at::kCPU);
  terms.average_weight = at::Tensor();
  EXPECT_THROW(step(odd_parameters(), terms), Error);
  EXPECT_THROW(step({}, first_terms(at::kCPU)), Error);
}

class CudaAdamWStep : public ::testing::Test {
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

TEST_F(CudaAdamWStep, EqualsTheReference) {
  for (const double max_norm : {0.0, 1.0, 1e6})
    for (const double divisor : {0.0, 64.0}) expect_reference_steps(device_, max_norm, divisor);
}

TEST_F(CudaAdamWStep, CopiesInFp16SaturateAndAreCounted) {
  expect_saturated_copies(device_);
}

TEST_F(CudaAdamWStep, APlantedInfinityChangesNothing) {
  expect_skips(device_);
}

TEST_F(CudaAdamWStep, NormsAreTheSameInEveryRun) {
  const AdamWTensors tensors = copies_on(odd_parameters(), device_);
  AdamWTable table;
  const at::Tensor norm = kernels::gradient_norm(tensors, {}, table);
  for (int run = 0; run < 10; ++run) EXPECT_TRUE(at::equal(kernels::gradient_norm(tensors, {}, table), norm));
}

TEST_F(CudaAdamWStep, FindsGradientsThatHaveMoved) {
  AdamWTensors tensors = copies_on(odd_parameters(), device_);
  AdamWTable table;
  const double norm = kernels::gradient_norm(tensors, {}, table).item<double>();
  for (at::Tensor& gradient : tensors.gradients) gradient = 2 * gradient;
  EXPECT_NEAR(kernels::gradient_norm(tensors, {}, table).item<double>(), 2 * norm, 1e-3 * norm);
}

TEST_F(CudaAdamWStep, ARecordedStepReadsItsScalarsAnew) {
  at::manual_seed(9);
  const AdamWTensors start = odd_parameters();
  const AdamWTensors ours = copies_on(start, device_), theirs = copies_on(start, at::kCPU);
  AdamWTerms our_terms = first_terms(device_), their_terms = first_terms(at::kCPU);
  AdamWSettings settings = kUnlimited;
  settings.max_norm = 1;
  AdamWTable table;
  const auto work = [&] {
    our_terms.norm = kernels::gradient_norm(ours, {}, table);
    kernels::adamw_step(ours, our_terms, settings, table);
  };
  const auto follow = [&] {
    their_terms.norm = kernels::adamw_step_ref::norm(theirs.gradients, std::nullopt, {});
    kernels::adamw_step_ref::apply(theirs, their_terms, settings);
  };
  work();
  follow();
  const auto graph = runtime_->make_graph();
  graph->capture(work);
  for (const double learning_rate : {0.02, 0.001}) {
    our_terms.learning_rate.fill_(learning_rate);
    their_terms.learning_rate.fill_(learning_rate);
    for (size_t i = 0; i < start.gradients.size(); ++i) {
      ours.gradients[i].mul_(-3);
      theirs.gradients[i].mul_(-3);
    }
    graph->replay();
    follow();
  }
  expect_near(ours, theirs, "recorded");
  EXPECT_EQ(our_terms.step.item<float>(), 6);
}

}  // namespace
}  // namespace fathom::adamw_step_test
