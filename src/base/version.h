// Which Fathom this is.
#pragma once

namespace fathom {

const char* version();  ///< "0.1.0"
const char* commit();   ///< the commit it was built from, shortened; "unknown" outside a repository

}  // namespace fathom
