// One stream behind another.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

namespace fathom {

/// `waiting` goes on when `before` has done what it was given so far; in a recording an edge of the graph.
inline void order(const c10::Stream& before, const c10::Stream& waiting) {
  c10::Event done(before.device_type());
  done.record(before);
  done.block(waiting);
}

}  // namespace fathom
