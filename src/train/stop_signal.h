// SIGINT and SIGTERM as a polite request.
#pragma once

namespace fathom {

/// While one lives, the first SIGINT or SIGTERM asks to stop and a second one ends the process at once. One
/// at a time in a process.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const;
};

}  // namespace fathom
