// What a roofline is made of must be what the models say of themselves.
#include "step/least_work.h"

#include <gtest/gtest.h>

namespace fathom::bench::least_work_test {
namespace {

double forward_flops_of(const LeastWork& work) {
  double flops = 0;
  for (const Product& product : work.products)
    flops += 2.0 * static_cast<double>(product.rows * product.in * product.out * product.count);
  for (const CausalAttention& attention : work.attentions)
    flops += 2.0 * static_cast<double>(attention.batch * attention.heads * attention.tokens *
                                       attention.tokens * attention.head_size * attention.count);
  for (const Traffic& traffic : work.traffic) flops += traffic.flops;
  return flops;
}

double bytes_of(const LeastWork& work, const std::string& name) {
  double bytes = 0;
  for (const Traffic& traffic : work.traffic)
    if (traffic.name == name) bytes += traffic.bytes;
  return bytes;
}

TEST(LeastWork, TransformerHasTheProductsThatTheModelCounts) {
  const LanguageModelConfig config{
      .vocab_size = 96, .dim = 64, .layers = 3, .heads = 4, .kv_heads = 2, .mlp_dim = 176};
  const LeastWork work = transformer_work(config, 5, 32, /*has_head=*/true, {});
  EXPECT_DOUBLE_EQ(forward_flops_of(work), static_cast<double>(forward_flops(config, 5, 32)));
}

TEST(LeastWork, SwinHasTheProductsThatTheModelCounts) {
  for (const int64_t side : {224, 160}) {  // at 160 windows reach beyond the map
    SwinConfig config = swin_preset(SwinPreset::kTiny);
    config.image_size = side;
    const LeastWork work = swin_work(config, 3, {});
    EXPECT_DOUBLE_EQ(forward_flops_of(work), static_cast<double>(forward_flops(config, 3))) << side;
  }
}

TEST(LeastWork, TrainingMovesMoreAndHalfThePrecisionHalfOfIt) {
  const LanguageModelConfig config{.vocab_size = 96, .dim = 64, .layers = 3, .heads = 4, .mlp_dim = 176};
  const auto work = [&](at::ScalarType type, bool trains) {
    return transformer_work(config, 5, 32, true, {type, trains});
  };
  const double rows = 5 * 32, forward = rows * 4 * 3 * 3 * 176;  // gate and up read, their product written
  EXPECT_DOUBLE_EQ(bytes_of(work(at::kFloat, false), "swiglu"), forward);
  EXPECT_DOUBLE_EQ(bytes_of(work(at::kFloat, true), "swiglu"), forward * 8 / 3);
  EXPECT_DOUBLE_EQ(bytes_of(work(at::kBFloat16, true), "swiglu"), forward * 4 / 3);
}

TEST(LeastWork, OptimizerReadsAndWritesFloat32Masters) {
  EXPECT_DOUBLE_EQ(bytes_of(optimizer_work(10, at::kFloat), "optimizer"), 320);
  EXPECT_DOUBLE_EQ(bytes_of(optimizer_work(10, at::kBFloat16), "optimizer"), 340);
}

}  // namespace
}  // namespace fathom::bench::least_work_test
