// What ranks do in these tests, one function per body. Each is defined beside the tests that run it.
#pragma once

#include "distributed/collective.h"

namespace fathom::test {

// collective_test.cpp
void check_operations(Collective& collective);
void check_gather_gradient(Collective& collective);
void check_contrastive_gradient(Collective& collective);
void check_argument_errors(Collective& collective);

// reducer_test.cpp
void check_reduced_gradients(Collective& collective);
void check_lent_twice(Collective& collective);
void check_repeatability(Collective& collective);
void check_overlap(Collective& collective);
void check_broadcast_at_start(Collective& collective);
void check_different_models(Collective& collective);
void check_growing_use(Collective& collective);
void check_late_use(Collective& collective);

// failure_test.cpp
void throw_on_last_rank(Collective& collective);
void exit_on_last_rank(Collective& collective);
void kill_last_rank(Collective& collective);
void kill_first_rank(Collective& collective);
void stop_first_rank(Collective& collective);
void kill_while_others_compute(Collective& collective);
void leave_early(Collective& collective);

}  // namespace fathom::test
