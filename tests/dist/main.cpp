// Runs the tests, or, started again by one of them, a single rank.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "base/error.h"
#include "dist/bodies.h"
#include "dist/ranks.h"

namespace fathom::test {

const RankBody& find_body(const std::string& name) {
  static const std::map<std::string, RankBody> bodies{
      {"check_operations", check_operations},
      {"check_gather_gradient", check_gather_gradient},
      {"check_contrastive_gradient", check_contrastive_gradient},
      {"check_argument_errors", check_argument_errors},
      {"check_reduced_gradients", check_reduced_gradients},
      {"check_repeatability", check_repeatability},
      {"check_overlap", check_overlap},
      {"check_lent_twice", check_lent_twice},
      {"check_broadcast_at_start", check_broadcast_at_start},
      {"check_different_models", check_different_models},
      {"check_growing_use", check_growing_use},
      {"check_late_use", check_late_use},
      {"throw_on_last_rank", throw_on_last_rank},
      {"exit_on_last_rank", exit_on_last_rank},
      {"kill_last_rank", kill_last_rank},
      {"kill_first_rank", kill_first_rank},
      {"stop_first_rank", stop_first_rank},
      {"kill_while_others_compute", kill_while_others_compute},
      {"leave_early", leave_early},
  };
  const auto found = bodies.find(name);
  FATHOM_CHECK(found != bodies.end(), "no rank body '{}'", name);
  return found->second;
}

namespace {

int run_body(const std::string& name) {
  try {
    auto collective = make_collective(RankEnvironment::from_environment(), rank_device());
    run_rank(*collective, [&] { find_body(name)(*collective); });
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return exit_status(error.kind());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return exit_status(ErrorKind::kInternal);
  }
}

}  // namespace
}  // namespace fathom::test

int main(int argc, char** argv) {
  if (const char* body = std::getenv("FATHOM_TEST_BODY")) return fathom::test::run_body(body);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
