// A dual tower with other centres for a while.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace fathom {

/// A model has other centres (DualTower::centres) as long as this lives.
class CentresInUse {
 public:
  /// `used`: one for each of `centres`, of its shape.
  CentresInUse(std::vector<at::Tensor> centres, const std::vector<at::Tensor>& used);
  ~CentresInUse();
  CentresInUse(const CentresInUse&) = delete;
  CentresInUse& operator=(const CentresInUse&) = delete;

 private:
  std::vector<at::Tensor> centres_, own_;
};

}  // namespace fathom
