// Keyed randomness: quality, and independence of batch split, device path and recompute.
#include "kernels/keyed_dropout.h"
#include "base/error.h"
#include "gradcheck.h"
#include "tensor/random_keys.h"

namespace fathom::keyed_dropout_test {
namespace {

at::Tensor keys(int64_t count) {
  return at::arange(count, at::kLong).mul(0x5851f42d4c957f2d).add(77);
}

TEST(RandomKeys, TensorsAndScalarsAgree) {
  const auto key = keys(3);
  const auto bits = keyed_bits(key, {4, 5}, 123456789012345);
  for (int64_t b = 0; b < 3; ++b)
    for (uint32_t i = 0; i < 20; ++i)
      EXPECT_EQ(bits.view({3, 20})[b][i].item<int64_t>(),
                keyed_bits(sample_key(key[b].item<int64_t>(), 123456789012345), i));
  const auto of_tokens = token_keys(key, 20);
  for (int64_t b = 0; b < 3; ++b)
    for (uint32_t t = 0; t < 20; ++t)
      EXPECT_EQ(of_tokens[b][t].item<int64_t>(), token_key(key[b].item<int64_t>(), t));
}

TEST(RandomKeys, UniformInMeanVarianceAndAcrossNeighbours) {
  const auto u = keyed_uniform(keys(64), {4096}, 3).to(at::kDouble);
  EXPECT_NEAR(u.mean().item<double>(), 0.5, 2e-3);
  EXPECT_NEAR(u.var().item<double>(), 1.0 / 12, 1e-3);
  EXPECT_GE(u.min().item<double>(), 0.0);
  EXPECT_LT(u.max().item<double>(), 1.0);
  const auto centred = u - 0.5;
  const auto correlation = [&](const at::Tensor& a, const at::Tensor& b) {
    return std::abs((a * b).mean().item<double>() * 12);
  };
  EXPECT_LT(correlation(centred.narrow(1, 0, 4095), centred.narrow(1, 1, 4095)), 0.01);  // positions
  EXPECT_LT(correlation(centred.narrow(0, 0, 63), centred.narrow(0, 1, 63)), 0.01);      // samples
  const auto other = keyed_uniform(keys(64), {4096}, 4).to(at::kDouble) - 0.5;
  EXPECT_LT(correlation(centred, other), 0.01);  // streams
}

TEST(RandomKeys, SampleKeysDifferBySeedStepAndIndex) {
  const auto index = at::arange(100, at::kLong);
  const auto all =
      at::cat({make_sample_keys(index, 1, 1), make_sample_keys(index, 1, 2), make_sample_keys(index, 2, 1)});
  EXPECT_EQ(std::get<0>(at::_unique(all)).numel(), 300);
  EXPECT_TRUE(at::equal(make_sample_keys(index, 1, 1).narrow(0, 40, 5),
                        make_sample_keys(index.narrow(0, 40, 5), 1, 1)));
}

TEST(KeyedDropout, EqualsReferenceInEveryType) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const auto x = at::randn({5, 7, 33}).to(type);
    EXPECT_TRUE(at::allclose(kernels::keyed_dropout(x, keys(5), 9, 0.3),
                             kernels::keyed_dropout_ref::apply(x, keys(5), 9, 0.3), 1e-2, 1e-2))
        << c10::toString(type);
  }
  const auto x = at::randn({2, 40000});  // more than one task a sample
  EXPECT_TRUE(at::allclose(kernels::keyed_dropout(x, keys(2), 9, 0.3),
                           kernels::keyed_dropout_ref::apply(x, keys(2), 9, 0.3)));
}

TEST(KeyedDropout, DropsTheAskedShareAndKeepsTheMean) {
  const auto y = kernels::keyed_dropout(at::ones({16, 10000}), keys(16), 1, 0.2);
  EXPECT_NEAR(y.eq(0).to(at::kFloat).mean().item<float>(), 0.2, 0.005);
  EXPECT_NEAR(y.mean().item<float>(), 1.0, 0.01);
}

TEST(KeyedDropout, IsTheSameOnAnySplitOfTheBatch) {
  const auto x = at::randn({6, 50}), key = keys(6);
  const auto whole = kernels::keyed_dropout(x, key, 2, 0.5);
  const auto parts = at::cat({kernels::keyed_dropout(x.narrow(0, 0, 2), key.narrow(0, 0, 2), 2, 0.5),
                              kernels::keyed_dropout(x.narrow(0, 2, 4), key.narrow(0, 2, 4), 2, 0.5)});
  EXPECT_TRUE(at::equal(whole, parts));
  EXPECT_FALSE(at::equal(whole, kernels::keyed_dropout(x, key, 3, 0.5)));
}

TEST(KeyedDropout, GradientHasTheMaskOfTheForwardPass) {
  testing::expect_gradients([](const auto& in) { return kernels::keyed_dropout(in[0], keys(3), 5, 0.4); },
                            {at::randn({3, 11}, at::kDouble)});
  EXPECT_THROW(kernels::keyed_dropout(at::ones({3, 2}), keys(2), 5, 0.4), Error);
  EXPECT_THROW(kernels::keyed_dropout(at::ones({3, 2}), keys(3), 5, 1.0), Error);
}

}  // namespace
}  // namespace fathom::keyed_dropout_test
