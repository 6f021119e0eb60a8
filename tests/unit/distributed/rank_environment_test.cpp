#include "distributed/rank_environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace fathom::rank_environment_test {
namespace {

using Variables = std::map<std::string, std::string>;

std::string message_of(const Variables& variables) {
  try {
    RankEnvironment::from_variables(variables);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    return error.what();
  }
  return "no error";
}

TEST(RankEnvironment, IsAloneWithoutALauncher) {
  const auto alone = RankEnvironment::from_variables({{"HOME", "/"}});
  EXPECT_EQ(alone.rank, 0);
  EXPECT_EQ(alone.size, 1);
  EXPECT_TRUE(alone.on_one_machine());
}

TEST(RankEnvironment, ReadsTorchrun) {
  const auto environment = RankEnvironment::from_variables({{"RANK", "5"},
                                                            {"WORLD_SIZE", "8"},
                                                            {"LOCAL_RANK", "1"},
                                                            {"LOCAL_WORLD_SIZE", "4"},
                                                            {"MASTER_ADDR", "node7"},
                                                            {"MASTER_PORT", "29500"},
                                                            {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                                            {"TORCHELASTIC_RESTART_COUNT", "2"},
                                                            {"SLURM_PROCID", "1"},
                                                            {"SLURM_NTASKS", "2"}});
  EXPECT_EQ(environment.rank, 5);
  EXPECT_EQ(environment.size, 8);
  EXPECT_EQ(environment.local_rank, 1);
  EXPECT_EQ(environment.local_size, 4);
  EXPECT_EQ(environment.master_host, "node7");
  EXPECT_EQ(environment.master_port, 29500);
  EXPECT_TRUE(environment.store_is_running);
  EXPECT_EQ(environment.attempt, "2");
  EXPECT_FALSE(environment.on_one_machine());
}

TEST(RankEnvironment, ReadsSrun) {
  Variables variables{{"SLURM_PROCID", "3"},    {"SLURM_NTASKS", "4"},
                      {"SLURM_LOCALID", "1"},   {"SLURM_NNODES", "2"},
                      {"SLURM_JOB_ID", "4711"}, {"SLURM_JOB_NODELIST", "gpu[007-008]"}};
  const auto environment = RankEnvironment::from_variables(variables);
  EXPECT_EQ(environment.rank, 3);
  EXPECT_EQ(environment.size, 4);
  EXPECT_EQ(environment.local_rank, 1);
  EXPECT_EQ(environment.local_size, 0);
  EXPECT_EQ(environment.master_host, "gpu007");
  EXPECT_GE(environment.master_port, 15000);
  EXPECT_LT(environment.master_port, 30000);
  // Every rank arrives at the same port; another job at another one.
  variables["SLURM_PROCID"] = "0";
  variables["SLURM_LOCALID"] = "0";
  EXPECT_EQ(RankEnvironment::from_variables(variables).master_port, environment.master_port);
  variables["SLURM_JOB_ID"] = "4712";
  EXPECT_NE(RankEnvironment::from_variables(variables).master_port, environment.master_port);
}

TEST(RankEnvironment, ReadsTheStepOfSrunBeforeTheJob) {
  const auto environment = RankEnvironment::from_variables({{"SLURM_PROCID", "1"},
                                                            {"SLURM_NTASKS", "16"},
                                                            {"SLURM_STEP_NUM_TASKS", "2"},
                                                            {"SLURM_LOCALID", "1"},
                                                            {"SLURM_STEP_NUM_NODES", "1"},
                                                            {"SLURM_NNODES", "4"},
                                                            {"SLURM_JOB_ID", "1"}});
  EXPECT_EQ(environment.size, 2);
  EXPECT_EQ(environment.local_size, 2);
  EXPECT_EQ(environment.master_host, "127.0.0.1");
}

TEST(RankEnvironment, ReadsMpirun) {
  const auto open_mpi = RankEnvironment::from_variables({{"OMPI_COMM_WORLD_RANK", "1"},
                                                         {"OMPI_COMM_WORLD_SIZE", "2"},
                                                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                                                         {"PMIX_NAMESPACE", "prterun-1"}});
  EXPECT_EQ(open_mpi.rank, 1);
  EXPECT_EQ(open_mpi.master_host, "127.0.0.1");
  EXPECT_GT(open_mpi.master_port, 0);
  const auto pmi = RankEnvironment::from_variables({{"PMI_RANK", "2"},
                                                    {"PMI_SIZE", "3"},
                                                    {"MPI_LOCALRANKID", "0"},
                                                    {"MPI_LOCALNRANKS", "1"},
                                                    {"MASTER_ADDR", "a"},
                                                    {"MASTER_PORT", "1234"}});
  EXPECT_EQ(pmi.rank, 2);
  EXPECT_EQ(pmi.local_rank, 0);
  EXPECT_EQ(pmi.master_port, 1234);
}

TEST(RankEnvironment, RefusesWhatContradictsItself) {
  using testing::HasSubstr;
  const Variables good{{"RANK", "1"},
                       {"WORLD_SIZE", "2"},
                       {"LOCAL_RANK", "1"},
                       {"LOCAL_WORLD_SIZE", "2"},
                       {"MASTER_PORT", "1"}};
  const auto with = [&](const std::string& name, const std::string& value) {
    Variables changed = good;
    changed[name] = value;
    return message_of(changed);
  };
  EXPECT_EQ(message_of(good), "no error");
  EXPECT_THAT(with("RANK", "2"), HasSubstr("RANK=2 but WORLD_SIZE=2"));
  EXPECT_THAT(with("RANK", "one"), HasSubstr("RANK='one' is no non-negative whole number"));
  EXPECT_THAT(with("RANK", "-1"), HasSubstr("RANK='-1'"));
  EXPECT_THAT(with("RANK", ""), HasSubstr("WORLD_SIZE is set but RANK is not"));
  EXPECT_THAT(with("WORLD_SIZE", ""), HasSubstr("RANK is set but WORLD_SIZE is not"));
  EXPECT_THAT(with("LOCAL_RANK", "2"), HasSubstr("LOCAL_RANK=2 but 2 ranks on this machine"));
  EXPECT_THAT(with("LOCAL_WORLD_SIZE", "3"), HasSubstr("3 ranks on this machine but 2 in all"));
  EXPECT_THAT(with("LOCAL_WORLD_SIZE", ""), HasSubstr("MASTER_ADDR"));
  EXPECT_THAT(with("MASTER_PORT", ""), HasSubstr("MASTER_PORT"));
  EXPECT_THAT(with("MASTER_PORT", "70000"), HasSubstr("70000"));
}

TEST(RankEnvironment, FindsTheFirstSlurmHost) {
  EXPECT_EQ(first_slurm_host("node1"), "node1");
  EXPECT_EQ(first_slurm_host("node1,node2"), "node1");
  EXPECT_EQ(first_slurm_host("node[003-005,9],b1"), "node003");
  EXPECT_EQ(first_slurm_host("rack[2,4]-gpu,x"), "rack2-gpu");
  EXPECT_THROW(first_slurm_host("node[003-"), Error);
  EXPECT_THROW(first_slurm_host("node[]"), Error);
  EXPECT_THROW(first_slurm_host(""), Error);
}

}  // namespace
}  // namespace fathom::rank_environment_test
