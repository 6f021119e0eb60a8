// Copies of weights in 16 bits: equal to a cast, whoever changed the weight, and taken by what multiplies.
#include "kernels/weight_copies.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/adamw_step.h"
#include "kernels/linear.h"

namespace fathom::weight_copies_test {
namespace {

using kernels::WeightCopies;
using testing::relative_error;

at::Tensor weight_of(at::IntArrayRef shape, at::Device device = at::kCPU) {
  return at::randn(shape, at::TensorOptions(device)).requires_grad_();
}

bool is_cast_of(const at::Tensor& copy, const at::Tensor& weight) {
  return copy.defined() && at::equal(copy, weight.detach().to(copy.scalar_type()));
}

TEST(WeightCopies, AreCastsOfTheWeightsThatWereAskedFor) {
  const at::Tensor asked = weight_of({5, 3}), other = weight_of({4}), unknown = weight_of({2, 2});
  WeightCopies copies({asked, other}, at::kBFloat16);
  EXPECT_EQ(copies.size(), 0);
  const at::Tensor copy = copies.of(asked, at::kBFloat16);
  EXPECT_TRUE(is_cast_of(copy, asked));
  EXPECT_FALSE(copy.requires_grad());
  EXPECT_TRUE(copies.of(asked, at::kBFloat16).is_same(copy)) << "made once";
  EXPECT_EQ(copies.size(), 1);
  EXPECT_FALSE(copies.kept(other).defined()) << "nobody asked";
  EXPECT_FALSE(copies.of(asked, at::kHalf).defined());
  EXPECT_FALSE(copies.of(unknown, at::kBFloat16).defined());
  EXPECT_FALSE(copies.of(asked.view({15}), at::kBFloat16).defined()) << "views come and go";
  EXPECT_EQ(copies.size(), 1);
}

TEST(WeightCopies, LeaveOutWhatIsNoDenseFloat32) {
  const at::Tensor wide = at::randn({3, 2}, at::kDouble), turned = at::randn({3, 2}).t();
  WeightCopies copies({wide, turned}, at::kHalf);
  EXPECT_FALSE(copies.of(wide, at::kHalf).defined());
  EXPECT_FALSE(copies.of(turned, at::kHalf).defined());
  EXPECT_TRUE(at::equal(kernels::narrowed_weight(turned, at::kHalf, &copies), turned.to(at::kHalf)));
  EXPECT_TRUE(at::equal(kernels::narrowed_weight(turned, at::kHalf, nullptr), turned.to(at::kHalf)));
}

/// All ways in which weights change in this program.
TEST(WeightCopies, NoticeAWeightThatIsChangedBehindTheirBack) {
  at::Tensor weight = weight_of({6, 7});
  const std::vector<std::pair<std::string, std::function<void()>>> changes = {
      {"loading",
       [&] {
         weight.copy_(at::randn({6, 7}));
       }},
      {"merging an adapter",
       [&] {
         weight.add_(at::randn({6, 7}));
       }},
      {"swapping in an average",
       [&] {
         weight.detach().copy_(at::randn({6, 7}));
       }},
      {"one element", [&] { weight[2][3] = 9; }},
      {"a list",
       [&] {
         at::_foreach_lerp_({weight.detach()}, {at::randn({6, 7})}, 0.5);
       }},
      {"other memory", [&] {
         weight.set_data(at::randn({6, 7}));
       }}};
  WeightCopies copies({weight}, at::kBFloat16);
  const void* place = copies.of(weight, at::kBFloat16).const_data_ptr();
  for (const auto& [name, change] : changes) {
    const at::NoGradGuard no_grad;
    change();
    EXPECT_FALSE(is_cast_of(copies.kept(weight), weight)) << name << " changes nothing that shows";
    EXPECT_TRUE(is_cast_of(copies.of(weight, at::kBFloat16), weight)) << name;
    change();
    copies.refresh();
    EXPECT_TRUE(is_cast_of(copies.kept(weight), weight)) << name << ", all at once";
  }
  EXPECT_EQ(copies.kept(weight).const_data_ptr(), place) << "recorded work reads there";
}

TEST(WeightCopies, AChangeBetweenForwardAndBackwardIsAnError) {
  at::Tensor weight = weight_of({6, 8});
  WeightCopies copies({weight}, at::kBFloat16);
  const at::Tensor x = at::randn({2, 8}).to(at::kBFloat16);
  if (kernels::product_type(x) != at::kBFloat16) GTEST_SKIP() << "no BF16 products here";
  const at::Tensor y = kernels::linear(x, weight, {}, {.copies = &copies});
  {
    const at::NoGradGuard no_grad;
    weight.add_(1);
  }
  copies.refresh();
  EXPECT_THROW(y.sum().backward(), c10::Error);
}

/// Weights, their copies and what an update of them needs.
struct Updated {
  at::Tensor weight;
  WeightCopies copies;
  kernels::AdamWTensors tensors;
  kernels::AdamWTerms terms;
  kernels::AdamWTable table;

  explicit Updated(at::Device device, at::ScalarType type = at::kBFloat16, const at::Tensor& saturated = {})
      : Updated(weight_of({33, 65}, device), type, saturated) {}
  Updated(const at::Tensor& updated_weight, at::ScalarType type, const at::Tensor& saturated)
      : weight(updated_weight), copies({weight}, type, saturated) {
    const at::Device device = weight.device();
    const at::Tensor like = weight.detach();
    tensors = {.parameters = {weight},
               .gradients = {at::randn_like(like)},
               .first = {at::zeros_like(like)},
               .second = {at::zeros_like(like)},
               .averages = {at::Tensor()},
               .copies = {copies.of(weight, type)},
               .learning_rate_scales = {1},
               .weight_decays = {0.1}};
    const auto options = at::TensorOptions(device);
    terms = {.step = at::zeros({}, options),
             .learning_rate = at::full({}, 0.1, options.dtype(at::kDouble)),
             .saturated = copies.saturated()};
  }
  void step() {
    kernels::adamw_step(tensors, terms, {.beta1 = 0.9, .beta2 = 0.98, .epsilon = 1e-8, .max_norm = 0}, table);
  }
};

void expect_written_by_a_step(at::Device device, at::ScalarType type) {
  Updated updated(device, type);
  const at::Tensor before = updated.weight.detach().clone();
  for (int step = 0; step < 3; ++step) {
    updated.step();
    EXPECT_TRUE(is_cast_of(updated.copies.kept(updated.weight), updated.weight)) << "in the pass itself";
    updated.copies.follow(updated.weight);
    const int64_t version = updated.copies.kept(updated.weight)._version();
    EXPECT_TRUE(is_cast_of(updated.copies.of(updated.weight, type), updated.weight));
    EXPECT_EQ(updated.copies.kept(updated.weight)._version(), version) << "nothing is cast again";
  }
  EXPECT_GT(relative_error(updated.weight, before), 0.05);
}

TEST(WeightCopies, AreWrittenByTheOptimizersPass) {
  for (const auto type : {at::kBFloat16, at::kHalf}) expect_written_by_a_step(at::kCPU, type);
}

/// Each time that a copy is written; a step that is skipped writes none.
void expect_saturated_and_counted(at::Device device) {
  const auto integers = at::TensorOptions(device).dtype(at::kLong);
  const at::Tensor weight = weight_of({33, 65}, device), count = at::zeros({}, integers);
  {
    const at::NoGradGuard no_grad;
    weight[0][0] = 1e6;
    weight[32][64] = -1e6;
    weight[7][3] = 65504;
  }
  Updated updated(weight, at::kHalf, count);
  const auto is_saturated_cast = [&](const at::Tensor& copy) {
    return copy.isfinite().all().item<bool>() && copy[0][0].item<float>() == 65504 &&
           copy[32][64].item<float>() == -65504 &&
           at::equal(copy, kernels::saturated_half(weight.detach(), {}));
  };
  EXPECT_EQ(count.item<int64_t>(), 2) << "when the copy is made";
  EXPECT_TRUE(is_saturated_cast(updated.copies.of(weight, at::kHalf)));
  EXPECT_TRUE(is_saturated_cast(kernels::narrowed_weight(weight, at::kHalf, nullptr))) << "a cast likewise";
  EXPECT_EQ(count.item<int64_t>(), 2) << "nothing was written";
  {
    const at::NoGradGuard no_grad;
    weight[7][3] = 60000;  // far from the end, whatever the update
  }
  EXPECT_TRUE(is_saturated_cast(updated.copies.of(weight, at::kHalf)));
  EXPECT_EQ(count.item<int64_t>(), 4) << "cast anew";
  updated.step();
  updated.copies.follow(weight);
  EXPECT_TRUE(is_saturated_cast(updated.copies.kept(weight)));
  EXPECT_EQ(count.item<int64_t>(), 6) << "written by the update";
  updated.terms.skip = at::ones({}, at::TensorOptions(device));
  updated.step();
  EXPECT_EQ(count.item<int64_t>(), 6);
}

TEST(WeightCopies, InFp16SaturateAndAreCounted) {
  expect_saturated_and_counted(at::kCPU);
}

TEST(WeightCopies, AStepThatNobodyReportsIsNoticed) {
  Updated updated(at::kCPU);
  updated.tensors.copies = {at::Tensor()};
  updated.step();
  EXPECT_FALSE(is_cast_of(updated.copies.kept(updated.weight), updated.weight));
  EXPECT_TRUE(is_cast_of(updated.copies.of(updated.weight, at::kBFloat16), updated.weight));
}

struct LinearPass {
  at::Tensor y, grad_x, grad_weight, grad_bias;
};

LinearPass passed(const at::Tensor& x_in, const at::Tensor& weight_in, const at::Tensor& bias_in,
                  WeightCopies* copies) {
  const at::Tensor x = x_in.detach().requires_grad_(), bias = bias_in.detach().requires_grad_();
  weight_in.mutable_grad() = at::Tensor();
  const at::Tensor y = kernels::linear(x, weight_in, bias, {.copies = copies});
  y.square().sum().backward();
  return {y.detach(), x.grad(), weight_in.grad(), bias.grad()};
}

LinearPass passed_in_half(const at::Tensor& x_in, const at::Tensor& weight_in, WeightCopies* copies) {
  const at::Tensor x = x_in.detach().requires_grad_();
  weight_in.mutable_grad() = at::Tensor();
  const at::Tensor y = kernels::linear(x, weight_in, {}, {.products = {.type = at::kHalf}, .copies = copies});
  y.square().sum().backward();
  return {y.detach(), x.grad(), weight_in.grad(), at::Tensor()};
}

/// As below, of operands in FP16.
void expect_taken_by_half_linear(at::Device device) {
  const at::Tensor weight = weight_of({24, 40}, device),
                   x = at::randn({3, 5, 40}, at::TensorOptions(device)).to(at::kBFloat16);
  WeightCopies copies({weight}, at::kHalf);
  const LinearPass cast = passed_in_half(x, weight, nullptr), copied = passed_in_half(x, weight, &copies);
  EXPECT_EQ(copies.size(), 1);
  for (const auto part : {&LinearPass::y, &LinearPass::grad_x, &LinearPass::grad_weight})
    EXPECT_TRUE(at::equal(copied.*part, cast.*part));
  {
    const at::AutoDispatchBelowADInplaceOrView unseen;
    copies.kept(weight).zero_();
  }
  EXPECT_EQ(passed_in_half(x, weight, &copies).y.abs().max().item<float>(), 0);
}

TEST(WeightCopies, AreWhatProductsInFp16MultiplyWith) {
  expect_taken_by_half_linear(at::kCPU);
}

/// With copies as without, bit for bit; and copies are what is multiplied with.
void expect_taken_by_linear(at::Device device) {
  const at::Tensor weight = weight_of({24, 40}, device), bias = at::randn({24}, at::TensorOptions(device)),
                   x = at::randn({3, 5, 40}, at::TensorOptions(device)).to(at::kBFloat16);
  WeightCopies copies({weight}, at::kBFloat16);
  const LinearPass cast = passed(x, weight, bias, nullptr), copied = passed(x, weight, bias, &copies);
  EXPECT_EQ(copies.size(), 1);
  EXPECT_EQ(copied.grad_weight.scalar_type(), at::kFloat);
  for (const auto part :
       {&LinearPass::y, &LinearPass::grad_x, &LinearPass::grad_weight, &LinearPass::grad_bias})
    EXPECT_TRUE(at::equal(copied.*part, cast.*part));
  {
    const at::AutoDispatchBelowADInplaceOrView unseen;
    copies.kept(weight).zero_();
  }
  EXPECT_EQ(passed(x, weight, at::zeros_like(bias), &copies).y.abs().max().item<float>(), 0);
}

/// A bias of another type is cast as weights are, but its gradient keeps what the sum in float32 has.
void expect_biases_taken(at::Device device) {
  const at::Tensor weight = weight_of({24, 40}, device), bias = weight_of({24}, device),
                   x = at::randn({300, 40}, at::TensorOptions(device)).to(at::kBFloat16);
  WeightCopies copies({weight, bias}, at::kBFloat16);
  const at::Tensor y = kernels::linear(x, weight, bias, {.copies = &copies});
  EXPECT_EQ(copies.size(), 2);
  EXPECT_TRUE(at::equal(y, kernels::linear(x, weight, bias)));
  const at::Tensor slope = at::randn({300, 24}, at::TensorOptions(device)).to(at::kBFloat16);
  y.backward(slope);
  EXPECT_EQ(bias.grad().scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(bias.grad(), slope.to(at::kDouble).sum(0)), 1e-5);
  {
    const at::AutoDispatchBelowADInplaceOrView unseen;
    copies.kept(weight).zero_();
    copies.kept(bias).fill_(3);
  }
  EXPECT_TRUE(kernels::linear(x, weight, bias, {.copies = &copies}).eq(3).all().item<bool>());
}

TEST(WeightCopies, AreTakenOfBiasesToo) {
  if (kernels::product_type(at::zeros({1}, at::kBFloat16)) != at::kBFloat16)
    GTEST_SKIP() << "no BF16 products here";
  expect_biases_taken(at::kCPU);
}

TEST(WeightCopies, AreWhatLinearLayersMultiplyWith) {
  if (kernels::product_type(at::zeros({1}, at::kBFloat16)) != at::kBFloat16)
    GTEST_SKIP() << "no BF16 products here";
  expect_taken_by_linear(at::kCPU);
}

/// Lends one place once.
class OneRoom : public GradientRooms {
 public:
  explicit OneRoom(const at::Tensor& weight) : weight_(weight), room_(at::full_like(weight.detach(), 7)) {}
  at::Tensor take(const at::Tensor& parameter) override {
    if (!parameter.is_same(weight_) || is_lent_) return {};
    is_lent_ = true;
    return room_.view(room_.sizes());
  }
  const at::Tensor& room() const { return room_; }

 private:
  at::Tensor weight_, room_;
  bool is_lent_ = false;
};

void expect_written_into_a_room(at::Device device, const kernels::Products& products = {}) {
  const at::Tensor weight = weight_of({24, 40}, device),
                   x = at::randn({3, 5, 40}, at::TensorOptions(device)).to(at::kBFloat16);
  kernels::linear(x, weight, {}, {.products = products}).sum().backward();
  const at::Tensor expected = weight.grad();
  weight.mutable_grad() = at::Tensor();
  OneRoom rooms(weight);
  kernels::linear(x, weight, {}, {.products = products, .rooms = &rooms}).sum().backward();
  EXPECT_TRUE(at::equal(rooms.room(), expected));
  EXPECT_EQ(weight.grad().const_data_ptr(), rooms.room().const_data_ptr()) << "autograd keeps it as it is";
  kernels::linear(x, weight, {}, {.products = products, .rooms = &rooms}).sum().backward();
  EXPECT_TRUE(at::equal(weight.grad(), 2 * expected));
}

TEST(GradientRooms, AreWhereProductsInFp16WriteGradientsOfWeights) {
  expect_written_into_a_room(at::kCPU, {.type = at::kHalf});
}

TEST(GradientRooms, AreWhereLinearLayersWriteGradientsOfWeights) {
  if (kernels::product_type(at::zeros({1}, at::kBFloat16)) != at::kBFloat16)
    GTEST_SKIP() << "no BF16 products here";
  expect_written_into_a_room(at::kCPU);
}

class CudaWeightCopies : public cuda_test::CudaKernels {};

TEST_F(CudaWeightCopies, AreWrittenByTheOptimizersPass) {
  for (const auto type : {at::kBFloat16, at::kHalf}) expect_written_by_a_step(device_, type);
}

TEST_F(CudaWeightCopies, InFp16SaturateAndAreCounted) {
  expect_saturated_and_counted(device_);
}

TEST_F(CudaWeightCopies, AreWhatProductsInFp16MultiplyWith) {
  expect_taken_by_half_linear(device_);
}

TEST_F(CudaWeightCopies, AreWhatLinearLayersMultiplyWith) {
  expect_taken_by_linear(device_);
}

TEST_F(CudaWeightCopies, AreTakenOfBiasesToo) {
  expect_biases_taken(device_);
}

TEST_F(CudaWeightCopies, GradientsAreWrittenWhereTheyAreToLie) {
  expect_written_into_a_room(device_);
  expect_written_into_a_room(device_, {.type = at::kHalf});
}

/// BF16 would leave 2^-9 of the largest.
TEST_F(CudaWeightCopies, GradientsOfFloat32WeightsAreNotRoundedToBf16) {
  const at::Tensor weight = weight_of({24, 40}, device_);
  const at::Tensor x = at::randn({300, 40}, at::TensorOptions(device_)).to(at::kBFloat16),
                   slope = at::randn({300, 24}, at::TensorOptions(device_)).to(at::kBFloat16);
  kernels::linear(x, weight).backward(slope);
  EXPECT_LT(relative_error(weight.grad(), at::mm(slope.to(at::kDouble).t(), x.to(at::kDouble))), 1e-5);
}

TEST_F(CudaWeightCopies, WideProductsAreAddedInTheirOwnPass) {
  for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat}) {
    const at::Tensor a = at::randn({70, 24}, at::TensorOptions(device_)).to(type),
                     b = at::randn({70, 40}, at::TensorOptions(device_)).to(type);
    at::Tensor sum = at::randn({24, 40}, at::TensorOptions(device_));
    const at::Tensor expected = sum.to(at::kDouble) + 0.5 * at::mm(a.to(at::kDouble).t(), b.to(at::kDouble));
    kernels::add_wide_product(sum, a.t(), b, 0.5);
    EXPECT_LT(relative_error(sum, expected), type == at::kFloat ? 1e-3 : 1e-5) << c10::toString(type);
  }
}

}  // namespace
}  // namespace fathom::weight_copies_test
