#include "tensor/tensor_file.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "temporary_folder.h"

namespace fathom::tensor_file_test {
namespace {

TEST(TensorFile, ReadsWhatItWritesInEveryDtype) {
  const TemporaryFolder folder;
  TensorMap tensors;
  for (const auto type : {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf,
                          at::kBFloat16, at::kFloat, at::kDouble, at::kFloat8_e4m3fn, at::kFloat8_e5m2})
    tensors[c10::toString(type)] = at::arange(12).to(at::kFloat).reshape({3, 4}).to(type);
  tensors["transposed"] = at::arange(6).reshape({2, 3}).t();
  save_tensors(folder / "t.safetensors", tensors);
  const TensorMap again = load_tensors(folder / "t.safetensors");
  ASSERT_EQ(again.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(again.at(name).scalar_type(), tensor.scalar_type());
    EXPECT_TRUE(at::equal(again.at(name).to(at::kFloat), tensor.to(at::kFloat))) << name;
  }
}

TEST(TensorFile, RefusesWhatTheFormatLacks) {
  const TemporaryFolder folder;
  EXPECT_THROW(save_tensors(folder / "c", {{"c", at::arange(2).to(at::kComplexFloat)}}), Error);
}

}  // namespace
}  // namespace fathom::tensor_file_test
