#include <gtest/gtest.h>
#include <torch/torch.h>

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
  EXPECT_EQ(reducer.buckets()[0].numel(), 8);
  EXPECT_TRUE(layer->weight.grad().is_alias_of(reducer.buckets()[0]));
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

TEST(GradientReducer, NoticesGradientsThatLeftTheirBucket) {
  auto solo = make_solo_collective();
  torch::nn::Linear layer(3, 2);
  GradientReducer reducer(*solo, {{"weight", layer->weight}, {"bias", layer->bias}});
  layer->zero_grad();  // sets gradients to undefined
  reducer.expect_last_backward();
  layer->forward(torch::ones({4, 3})).sum().backward();
  EXPECT_THROW(reducer.finish(), Error);
}

}  // namespace
}  // namespace fathom::solo_collective_test
