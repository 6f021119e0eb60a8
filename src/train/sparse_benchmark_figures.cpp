// What a benchmark of gates says of its times.
#include <c10/core/ScalarType.h>

#include "train/sparse_benchmark.h"

namespace fathom {

Json SparseTiming::to_json() const {
  Json json = Json::object();
  json["dense_ms"] = dense_ms;
  json["gated_ms"] = gated_ms;
  json["rest_ms"] = rest_ms;
  json["speedup"] = speedup();
  json["share"] = share;
  json["limit"] = limit();
  json["limit_share"] = speedup() / limit();
  return json;
}

double decode_bytes(const LanguageModelConfig& model, at::ScalarType type, const DecodeReads& reads) {
  LanguageModelConfig one = model;
  one.gate = {};
  one.layers = 1;
  LanguageModelConfig two = one;
  two.layers = 2;
  const auto block = static_cast<double>(parameter_count(two) - parameter_count(one)),
             head = static_cast<double>(model.vocab_size * model.dim),
             key_and_value = static_cast<double>(2 * model.num_kv_heads() * model.head_size());
  return static_cast<double>(c10::elementSize(type)) *
         (reads.blocks * block + head + reads.visits * reads.keys * key_and_value);
}

Json DecodeTiming::to_json() const {
  Json json = timing.to_json();
  json["limit"] = limit();
  json["limit_share"] = timing.speedup() / limit();
  json["batch"] = batch;
  json["context"] = context;
  json["dense_bytes"] = dense_bytes;
  json["gated_bytes"] = gated_bytes;
  return json;
}

Json SparseBenchmarkReport::to_json() const {
  Json json = Json::object();
  json["inference_speedup"] = prefill.speedup();
  json["training_speedup"] = training.speedup();
  json["activated_share"] = activated_share;
  json["executed_flop_share"] = executed_flop_share;
  json["prefill"] = prefill.to_json();
  if (prefill_recorded) json["prefill_recorded"] = prefill_recorded->to_json();
  json["training"] = training.to_json();
  for (const DecodeTiming& timing : decode) json["decode"].push_back(timing.to_json());
  return json;
}

}  // namespace fathom
