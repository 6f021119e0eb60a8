// What bench_step measures: a model at one size, the work that it does, and the least that this can cost.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "measure/roofline.h"
#include "tensor/device_runtime.h"

namespace fathom::bench {

struct Question {
  std::string model;           ///< decoder, swin or dual
  std::string work;            ///< step (forward, backward, norm, clipping, AdamW) or forward
  std::string precision;       ///< fp32, bf16, of a step fp16_bf16 or fp8 or, of a forward pass, fp16
  std::vector<int64_t> shape;  ///< layers, width, tokens, batch; of swin the batch alone
  int64_t vocabulary = 0;
  int64_t image_side = 224;

  bool trains() const { return work == "step"; }
  /// Of activations, and of products that have no type of their own.
  at::ScalarType type() const { return type_named(precision); }
};

struct Subject {
  Json sizes;                 ///< for the result and for the peer
  std::function<void()> run;  ///< launches the work once
  double flops = 0;           ///< of products and attention
  LeastWork least;
};

Subject make_decoder(const Question& question, at::Device device);
Subject make_swin(const Question& question, at::Device device);
/// Swin-T and a text encoder under InfoNCE.
Subject make_dual(const Question& question, at::Device device);

}  // namespace fathom::bench
