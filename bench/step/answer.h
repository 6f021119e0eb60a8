// One question answered: rounds of ours, eager and compiled PyTorch in turns, and the device's limit.
#pragma once

#include <cstdint>

#include "base/json.h"
#include "measure/peer_process.h"
#include "step/subject.h"
#include "tensor/device_runtime.h"

namespace fathom::bench {

struct Conditions {
  PeerProcess* peer = nullptr;  ///< bench/peers/step.py; null: there is none
  int64_t threads = 1;          ///< on a CPU
  int64_t rounds = 7;
};

/// The JSON line.
Json answer(const Question& question, DeviceRuntime& runtime, const Conditions& conditions);

}  // namespace fathom::bench
