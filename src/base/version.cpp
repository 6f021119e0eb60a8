#include "base/version.h"

namespace fathom {

const char* version() {
  return FATHOM_VERSION;
}

const char* commit() {
  return FATHOM_COMMIT;
}

}  // namespace fathom
