#include "kernels/pass_learns.h"

#include <c10/core/GradMode.h>

namespace fathom::kernels {
namespace {

thread_local bool taken_again = false;

}  // namespace

bool pass_learns() {
  return taken_again || c10::GradMode::is_enabled();
}

TakenAgain::TakenAgain() : before_(taken_again) {
  taken_again = true;
}

TakenAgain::~TakenAgain() {
  taken_again = before_;
}

}  // namespace fathom::kernels
