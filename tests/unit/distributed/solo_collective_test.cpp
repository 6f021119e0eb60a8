#include <gtest/gtest.h>
#include <torch/torch.h>

#include <string>

#include "base/error.h"
#include "distributed/autograd_collectives.h"
#include "distributed/data_parallel.h"

namespace fathom::solo_collective_test {
namespace {

TEST(SoloCollective, IsTheIdentity) {
  auto solo = make_collective(RankEnvironment{}, at::kCPU);
  EXPECT_EQ(solo->rank(), 0);
  EXPECT_EQ(solo->size(), 1);
  const at::Tensor x = torch::arange(6).view({3, 2}).to(at::kDouble);
  at::Tensor y = x.clone();
  solo->all_reduce(y, ReduceOp::kMean);
  solo->all_reduce_async(y)->wait();
  solo->broadcast(y);
  solo->barrier();
  solo->check();
  EXPECT_TRUE(at::equal(x, y));
  EXPECT_TRUE(at::equal(solo->all_gather(x), x));
  EXPECT_FALSE(solo->all_gather(x).is_alias_of(x));
  EXPECT_TRUE(at::equal(solo->reduce_scatter(x), x));
  EXPECT_EQ(solo->all_gather(torch::tensor(3.0)).sizes(), at::IntArrayRef({1}));
}

TEST(SoloCollective, GatherPassesGradientsThrough) {
  auto solo = make_solo_collective();
  at::Tensor x = torch::ones({2, 3}, torch::requires_grad());
  const at::Tensor weight = torch::arange(6).view({2, 3}).to(at::kFloat);
  (all_gather_with_gradient(*solo, x) * weight).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), weight));
}

TEST(CollectiveConfig, RefusesAHeartbeatThatLooksLikeSilence) {
  CollectiveConfig config;
  config.validate();
  config.lost_after_seconds = 1.5;
  EXPECT_THROW(config.validate(), Error);
}

TEST(RunRank, PassesTheErrorOn) {
  auto solo = make_solo_collective();
  bool has_run = false;
  run_rank(*solo, [&] { has_run = true; });
  EXPECT_TRUE(has_run);
  EXPECT_THROW(run_rank(*solo, [] { fail(ErrorKind::kData, "broken"); }), Error);
}

TEST(GradientReducer, SoloAccumulatesIntoItsBuckets) {
  auto solo = make_solo_collective();
  torch::nn::Linear layer(3, 2);
  GradientReducer reducer(*solo, {{"weight", layer->weight}, {"bias", layer->bias}});
  const at::Tensor x = torch::ones({4, 3});
  for (int step = 0; step < 2; ++step) {  // the second would be doubled if zero() did nothing
    reducer.zero();
    layer->forward(x).sum().backward();
    reducer.expect_last_backward();
    layer->forward(x).sum().backward();
    reducer.finish();
    EXPECT_TRUE(at::equal(layer->weight.grad(), torch::full({2, 3}, 8.0f)));
    EXPECT_TRUE(at::equal(layer->bias.grad(), torch::full({2}, 8.0f)));
  }
  ASSERT_EQ(reducer.buckets().size(), 1u);
  EXPECT_EQ(reducer.buckets()[0].numel(), 12) << "of 2 and 6, each begins at a multiple of 16 bytes";
  EXPECT_TRUE(layer->weight.grad().is_alias_of(reducer.buckets()[0]));
}

TEST(GradientReducer, BringsGradientsToTheirPlacesWhereverTheyWereMade) {
  auto solo = make_solo_collective();
  torch::nn::Linear used(3, 2), unused(2, 2);
  GradientReducer reducer(*solo, {{"weight", used->weight}, {"unused", unused->weight}});
  const void* place = nullptr;
  for (int step = 0; step < 3; ++step) {
    reducer.zero();
    EXPECT_FALSE(used->weight.grad().defined());
    reducer.expect_last_backward();
    used->forward(torch::ones({4, 3})).sum().backward();
    reducer.finish();
    EXPECT_TRUE(at::equal(used->weight.grad(), torch::full({2, 3}, 4.0f)));
    EXPECT_TRUE(used->weight.grad().is_alias_of(reducer.buckets()[0]));
    EXPECT_TRUE(at::equal(unused->weight.grad(), torch::zeros({2, 2}))) << "of no contribution";
    const void* found = used->weight.grad().const_data_ptr();
    EXPECT_EQ(found, place != nullptr ? place : found) << "recorded work reads there";
    place = found;
    unused->weight.grad().fill_(7);  // what the next step must not find
  }
}

/// A product whose backward pass writes the weight's gradient where it is to lie, if it is lent the place.
struct WritingProduct : torch::autograd::Function<WritingProduct> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, GradientRooms* rooms, int64_t* num_lent) {
    context->save_for_backward({x, weight});
    context->saved_data["rooms"] = reinterpret_cast<int64_t>(rooms);
    context->saved_data["num_lent"] = reinterpret_cast<int64_t>(num_lent);
    return at::mm(x, weight.t());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    auto* rooms = reinterpret_cast<GradientRooms*>(context->saved_data["rooms"].toInt());
    at::Tensor room = rooms->take(saved[1]);
    if (room.defined()) ++*reinterpret_cast<int64_t*>(context->saved_data["num_lent"].toInt());
    const at::Tensor found = at::mm(grads[0].t(), saved[0]);
    return {at::Tensor(), room.defined() ? room.copy_(found) : found, at::Tensor(), at::Tensor()};
  }
};

TEST(GradientReducer, LendsEachPlaceOnceAStep) {
  auto solo = make_solo_collective();
  const at::Tensor weight = torch::randn({2, 3}).requires_grad_(), other = torch::ones({1});
  GradientReducer reducer(*solo, {{"weight", weight}});
  EXPECT_FALSE(reducer.take(other).defined());
  const at::Tensor x = torch::randn({4, 3});
  const at::Tensor once = at::mm(torch::ones({2, 4}), x);
  for (const int64_t uses : {1, 2})  // in one backward pass
    for (const int64_t passes : {1, 3}) {
      int64_t num_lent = 0;
      reducer.zero();
      reducer.expect_last_backward();
      for (int64_t pass = 0; pass < passes; ++pass) {
        at::Tensor sum = torch::zeros({});
        for (int64_t use = 0; use < uses; ++use)
          sum = sum + WritingProduct::apply(x, weight, &reducer, &num_lent).sum();
        sum.backward();
      }
      reducer.finish();
      EXPECT_EQ(num_lent, 1);
      EXPECT_TRUE(at::allclose(weight.grad(), once * (uses * passes)));
      EXPECT_TRUE(weight.grad().is_alias_of(reducer.buckets()[0]));
      EXPECT_FALSE(reducer.take(weight).defined()) << "it has its gradient";
    }
}

constexpr int64_t kLargeRows = 40000;  ///< of two numbers: too large to be brought to its place at the end

/// What is less than a whole gradient: adds one to the first row.
void add_to_first_row(const at::Tensor& gradient) {
  gradient[0].add_(1);
}

TEST(GradientReducer, AddsBehindOtherContributionsInTheirPlace) {
  auto solo = make_solo_collective();
  for (const int64_t rows : {int64_t{3}, kLargeRows}) {
    const at::Tensor weight = torch::randn({rows, 2}).requires_grad_(), other = torch::ones({1});
    GradientReducer reducer(*solo, {{"weight", weight}});
    EXPECT_FALSE(reducer.add(other, add_to_first_row));
    for (int step = 0; step < 2; ++step) {
      reducer.zero();
      EXPECT_FALSE(reducer.add(weight, add_to_first_row)) << "nothing comes that it could be added to";
      const at::Tensor place = reducer.take(weight);
      EXPECT_TRUE(reducer.add(weight, add_to_first_row)) << "waits";
      place.fill_(5);
      reducer.expect_last_backward();
      weight.backward(place.view(place.sizes()));
      EXPECT_TRUE(reducer.add(weight, add_to_first_row)) << "at once";
      reducer.finish();
      EXPECT_TRUE(weight.grad().is_alias_of(reducer.buckets()[0]));
      EXPECT_EQ(weight.grad()[0][1].item<float>(), 7);
      EXPECT_EQ(weight.grad()[1][1].item<float>(), 5);
    }
  }
}

TEST(GradientReducer, AddsWhereNothingElseCameBack) {
  auto solo = make_solo_collective();
  const at::Tensor weight = torch::randn({kLargeRows, 2}).requires_grad_();
  GradientReducer reducer(*solo, {{"weight", weight}});
  reducer.zero();
  reducer.take(weight).fill_(7);  // of a pass that learns nothing
  EXPECT_TRUE(reducer.add(weight, add_to_first_row));
  reducer.expect_last_backward();
  reducer.finish();
  EXPECT_EQ(weight.grad().sum().item<float>(), 2);
  reducer.zero();
  reducer.take(weight);
  EXPECT_TRUE(reducer.add(weight, add_to_first_row));
  reducer.zero();
  reducer.expect_last_backward();
  reducer.finish();
  EXPECT_EQ(weight.grad().sum().item<float>(), 0) << "forgotten";
}

TEST(GradientReducer, KeepsWhatAForwardPassWroteForItsBackwardPass) {
  auto solo = make_solo_collective();
  const at::Tensor weight = torch::randn({kLargeRows, 2}).requires_grad_();
  GradientReducer reducer(*solo, {{"weight", weight}});
  reducer.zero();
  reducer.take(weight).fill_(5);
  const at::Tensor place = reducer.buckets()[0].view({kLargeRows, 2});
  (weight * 2).sum().backward();  // of another pass, in between
  EXPECT_TRUE(place.eq(5).all().item<bool>());
  reducer.expect_last_backward();
  weight.backward(place.view(place.sizes()));
  reducer.finish();
  EXPECT_TRUE(weight.grad().eq(7).all().item<bool>());
  EXPECT_TRUE(weight.grad().is_alias_of(place));
}

TEST(GradientReducer, AddsToNarrowParametersInFloat32) {
  auto solo = make_solo_collective();
  const at::Tensor weight = torch::ones({2, 2}, at::kBFloat16).requires_grad_();
  GradientReducer reducer(*solo, {{"weight", weight}});
  reducer.zero();
  (weight * 256).sum().backward();
  EXPECT_TRUE(reducer.add(weight, add_to_first_row));
  reducer.expect_last_backward();
  reducer.finish();
  EXPECT_EQ(weight.grad()[0][0].item<float>(), 257) << "BF16 would leave 256";
}

TEST(GradientReducer, PlacesBeginWhereProductsWriteAtFullSpeed) {
  auto solo = make_solo_collective();
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    GradientReducer::NamedParameters parameters;
    for (const int64_t size : {4, 1, 7, 2})
      parameters.emplace_back(std::to_string(size), torch::ones({size}, type).requires_grad_());
    GradientReducer reducer(*solo, parameters, {.gradient_type = GradientType::kParameter});
    ASSERT_EQ(reducer.buckets().size(), 1u);
    for (const auto& [name, parameter] : parameters) {
      const at::Tensor place = reducer.take(parameter);
      ASSERT_TRUE(place.defined()) << name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(place.const_data_ptr()) % 16, 0u) << name;
      place.fill_(1);
    }
    EXPECT_EQ(reducer.buckets()[0].sum().item<double>(), 14) << "no place reaches into another";
  }
}

TEST(GradientReducer, AddsNarrowContributionsInFloat32) {
  auto solo = make_solo_collective();
  const at::Tensor weight = torch::ones({1}, at::kBFloat16).requires_grad_();
  GradientReducer reducer(*solo, {{"weight", weight}});
  for (int step = 0; step < 2; ++step) {
    reducer.zero();
    EXPECT_FALSE(reducer.take(weight).defined()) << "contributions are of another type";
    reducer.expect_last_backward();
    for (const double part : {256.0, 1.0, 1.0}) (weight * part).sum().backward();
    reducer.finish();
    EXPECT_EQ(weight.grad().scalar_type(), at::kFloat);
    EXPECT_EQ(weight.grad().item<float>(), 258) << "BF16 would leave 256";
  }
}

TEST(GradientReducer, SplitsByBucketSizeAndType) {
  auto solo = make_solo_collective();
  at::Tensor a = torch::ones({100}, torch::requires_grad()), b = torch::ones({100}, torch::requires_grad());
  at::Tensor c = torch::ones({100}, torch::dtype(at::kDouble).requires_grad(true)),
             frozen = torch::ones({100});
  const GradientReducer::NamedParameters parameters{{"a", a}, {"b", b}, {"c", c}, {"frozen", frozen}};
  EXPECT_EQ(GradientReducer(*solo, parameters).buckets().size(), 2u);
  EXPECT_EQ(GradientReducer(*solo, parameters, {.bucket_mb = 0.0004}).buckets().size(), 3u);
  EXPECT_FALSE(frozen.grad().defined());
}

TEST(GradientReducer, KeepsHalfPrecisionGradientsInFloat) {
  auto solo = make_solo_collective();
  const auto options = torch::dtype(at::kBFloat16).requires_grad(true);
  at::Tensor wide = torch::ones({1}, options), narrow = torch::ones({1}, options);
  GradientReducer in_float(*solo, {{"wide", wide}});
  GradientReducer in_parameter_type(*solo, {{"narrow", narrow}}, {.gradient_type = GradientType::kParameter});
  for (int micro_batch = 0; micro_batch < 300; ++micro_batch) {
    if (micro_batch == 299) {
      in_float.expect_last_backward();
      in_parameter_type.expect_last_backward();
    }
    (wide + narrow).sum().backward();
  }
  in_float.finish();
  in_parameter_type.finish();
  EXPECT_EQ(wide.grad().scalar_type(), at::kFloat);
  EXPECT_EQ(wide.grad().item<float>(), 300.0f);
  EXPECT_EQ(narrow.grad().scalar_type(), at::kBFloat16);
  EXPECT_EQ(narrow.grad().item<float>(), 256.0f);  // 256 + 1 is no BF16 number
}

TEST(GradientReducer, TakesGradientsBackThatWereForgottenElsewhere) {
  auto solo = make_solo_collective();
  torch::nn::Linear layer(3, 2);
  GradientReducer reducer(*solo, {{"weight", layer->weight}, {"bias", layer->bias}});
  for (int step = 0; step < 2; ++step) {
    layer->zero_grad();  // sets gradients to undefined, as zero() does, which is not called
    reducer.expect_last_backward();
    layer->forward(torch::ones({4, 3})).sum().backward();
    reducer.finish();
    EXPECT_TRUE(at::equal(layer->weight.grad(), torch::full({2, 3}, 4.0f)));
    EXPECT_TRUE(layer->weight.grad().is_alias_of(reducer.buckets()[0]));
  }
}

}  // namespace
}  // namespace fathom::solo_collective_test
