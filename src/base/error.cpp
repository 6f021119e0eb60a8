#include "base/error.h"

namespace fathom {

int exit_status(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return 2;
    case ErrorKind::kPeer:
    case ErrorKind::kInternal:
      return 3;
    default:
      return 1;
  }
}

}  // namespace fathom
