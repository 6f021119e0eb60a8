// The look of a report and its one script, both written into the page.
#pragma once

namespace fathom {

extern const char* const kPageStyle;
/// Shows the nearest point's values under the pointer. The page is whole without it.
extern const char* const kPageScript;

}  // namespace fathom
