#include "train/task/modality_centring.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace fathom {
namespace {

TEST(ModalityCentring, MovesEachCentreByAShareOfItsOwnMean) {
  const at::Tensor first_D = torch::tensor({1.0, 2.0}), second_D = torch::tensor({3.0, 4.0});
  ModalityCentring centring({first_D, second_D});
  centring.observe(0, torch::tensor({{1.0, 0.0}, {0.0, 1.0}}), {});
  centring.after_step();
  EXPECT_TRUE(at::allclose(first_D, torch::tensor({1.01, 2.01})));
  EXPECT_TRUE(at::equal(second_D, torch::tensor({3.0, 4.0})));
}

TEST(ModalityCentring, RowsThatAreNotThereCountForNothing) {
  const at::Tensor centre_D = at::zeros({2});
  ModalityCentring centring({centre_D});
  centring.observe(0, torch::tensor({{1.0, 0.0}, {7.0, 7.0}, {0.0, 0.5}}),
                   torch::tensor({true, false, true}));
  centring.after_step();
  EXPECT_TRUE(at::allclose(centre_D, torch::tensor({0.01, 0.005})));
  centring.observe(0, at::ones({2, 2}), torch::tensor({false, false}));
  centring.after_step();
  EXPECT_TRUE(at::allclose(centre_D, torch::tensor({0.01, 0.005}))) << "nobody has it";
}

}  // namespace
}  // namespace fathom
