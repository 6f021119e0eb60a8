#include "data/readers/tar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "tar_bytes.h"
#include "temporary_folder.h"

namespace fathom::tar_test {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// What reading to the end gives: "NAME=CONTENT", and errors as "!MESSAGE".
std::vector<std::string> read_all(const std::string& archive) {
  TarReader reader(std::as_bytes(std::span(archive)), "a.tar");
  std::vector<std::string> found;
  for (int i = 0; i < 100; ++i) {
    try {
      const auto member = reader.next();
      if (!member) return found;
      found.push_back(
          member->name + "=" +
          archive.substr(static_cast<size_t>(member->offset), static_cast<size_t>(member->bytes)));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      found.push_back(std::string("!") + error.what());
    }
  }
  ADD_FAILURE() << "no end";
  return found;
}

std::string error_of(const std::string& archive) {
  const auto found = read_all(archive);
  return found.empty() || found.back()[0] != '!' ? "no error" : found.back();
}

TEST(Tar, GivesFilesInTheirOrder) {
  const std::string folder = tar_header({.name = "images/", .type = '5'});
  EXPECT_THAT(read_all(folder + tar_file("images/a.txt", "first") + tar_file("b", "") +
                       tar_file("c", std::string(513, 'x')) + tar_end()),
              ElementsAre("images/a.txt=first", "b=", "c=" + std::string(513, 'x')));
  EXPECT_THAT(read_all(tar_end()), IsEmpty());
}

TEST(Tar, ReadsLongNamesOfAllKinds) {
  const std::string name(300, 'n');
  const std::string gnu = tar_header({.name = "././@LongLink", .bytes = name.size() + 1, .type = 'L'}) +
                          tar_padded(name + '\0') + tar_file(name, "gnu");
  const std::string pax = tar_pax("310 path=" + name + "\n") + tar_file("short", "pax");
  const std::string ustar = tar_header({.name = "file", .bytes = 1, .prefix = "far/away"}) + tar_padded("u");
  const std::string old =
      tar_header({.name = "old", .bytes = 1, .type = '\0', .magic = ""}) + tar_padded("o");
  EXPECT_THAT(read_all(gnu + pax + ustar + old + tar_file("plain", "p") + tar_end()),
              ElementsAre(name + "=gnu", name + "=pax", "far/away/file=u", "old=o", "plain=p"));
}

TEST(Tar, ReadsSizesOfAllKinds) {
  std::string binary(12, '\0');
  binary[0] = '\x80';
  binary[11] = 5;
  EXPECT_THAT(read_all(tar_header({.name = "b", .size_field = binary}) + tar_padded("bytes") + tar_end()),
              ElementsAre("b=bytes"));
  EXPECT_THAT(
      read_all(tar_header({.name = "b", .size_field = "       5    "}) + tar_padded("bytes") + tar_end()),
      ElementsAre("b=bytes"));
  EXPECT_THAT(read_all(tar_pax("10 size=5\n") + tar_header({.name = "b"}) + tar_padded("bytes") + tar_end()),
              ElementsAre("b=bytes"));
}

/// As the tar programs of this machine write them.
TEST(Tar, ReadsWhatTarWrites) {
  const TemporaryFolder folder;
  const std::string name = std::string(90, 'a') + "/" + std::string(90, 'b') + ".txt";
  std::filesystem::create_directories(folder / std::string(90, 'a'));
  write_file_atomically(folder / name, "content");
  for (const char* format : {"ustar", "pax", "gnu"}) {
    const std::string command =
        "cd " + folder.path() + " && tar --format=" + format + " -cf " + format + ".tar " + name;
    ASSERT_EQ(std::system(command.c_str()), 0);
    EXPECT_THAT(read_all(read_file(folder / format + ".tar")), ElementsAre(name + "=content")) << format;
  }
}

TEST(Tar, ACutArchiveSaysSoAfterWhatIsWhole) {
  const std::string whole = tar_file("a", "first") + tar_file("b", std::string(2000, 'x')) + tar_end();
  EXPECT_THAT(read_all(whole.substr(0, 1024)),
              ElementsAre("a=first", "!a.tar: byte 1024: no end mark: is the archive cut off?"));
  EXPECT_THAT(read_all(whole.substr(0, 1100)),
              ElementsAre("a=first", "!a.tar: byte 1024: the archive is cut off"));
  EXPECT_THAT(
      read_all(whole.substr(0, 1600)),
      ElementsAre("a=first",
                  "!a.tar: byte 1024: a member of 2000 bytes, but only 64 follow: is the archive cut off?"));
  EXPECT_THAT(error_of(""), HasSubstr("no end mark"));
}

TEST(Tar, HostileSizesAreRefused) {
  const auto with_size = [](const std::string& field) {
    return tar_header({.name = "a", .size_field = field}) + tar_padded("x") + tar_end();
  };
  EXPECT_THAT(error_of(with_size("77777777777")), HasSubstr("a member of 8589934591 bytes"));
  EXPECT_THAT(error_of(with_size("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
              HasSubstr("a size that is no number"));
  EXPECT_THAT(error_of(with_size("\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
              HasSubstr("a size that is no number"));
  std::string huge("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12);
  EXPECT_THAT(error_of(with_size(huge)), HasSubstr("a member of 9223372036854775807 bytes"));
  EXPECT_THAT(error_of(with_size("12a45678901")), HasSubstr("a size that is no number"));
  EXPECT_THAT(error_of(with_size("-0000000001")), HasSubstr("a size that is no number"));
  for (const char* records :
       {"999 path=a\n", "7 path=a\n", "x path=a\n", "9 path=ab", "0 a=b\n", "11 path=ab\n "})
    EXPECT_THAT(error_of(tar_pax(records) + tar_file("a", "x") + tar_end()), HasSubstr("a broken pax header"))
        << records;
  EXPECT_THAT(error_of(tar_pax("28 size=9999999999999999999\n") + tar_file("a", "x") + tar_end()),
              HasSubstr("a size that is no number"));
  EXPECT_THAT(error_of(tar_header({.name = "x", .bytes = 2 << 20, .type = 'x'}) + std::string(2 << 20, '1') +
                       tar_end()),
              HasSubstr("2097152 bytes of names"));
}

TEST(Tar, WhatIsNoArchiveIsRefused) {
  std::string broken = tar_file("a", "x") + tar_end();
  broken[3] = 'q';
  EXPECT_THAT(read_all(broken), ElementsAre("!a.tar: byte 0: no tar header (its checksum is wrong)"));
  EXPECT_THAT(error_of(std::string(5000, 'x')), HasSubstr("no tar header"));
}

TEST(Tar, GoesOnAfterWhatIsNoPlainFile) {
  EXPECT_THAT(
      read_all(tar_header({.name = "l", .bytes = 9, .type = '2'}) + tar_header({.name = "", .type = '0'}) +
               tar_header({.name = "caf\xe9", .type = '0'}) + tar_file("a", "x") + tar_end()),
      ElementsAre("!a.tar: byte 0: l: a symbolic link: only plain files are read",
                  "!a.tar: byte 512: a file without a name", "!a.tar: byte 1024: a name that is not UTF-8",
                  "a=x"));
}

TEST(Tar, AnyBytesEnd) {
  rc::check("mutations of an archive give members within it, or errors", [] {
    std::string archive =
        tar_pax("12 path=abc\n") + tar_file("a", "first") + tar_file("b", "second") + tar_end();
    const auto changes = *rc::gen::inRange(1, 8);
    for (int i = 0; i < changes; ++i)
      archive[*rc::gen::inRange<size_t>(0, archive.size())] = static_cast<char>(*rc::gen::inRange(0, 256));
    TarReader reader(std::as_bytes(std::span(archive)), "");
    for (int i = 0; i < 20; ++i) {
      try {
        const auto member = reader.next();
        if (!member) return;
        RC_ASSERT(member->offset >= 512 && member->bytes >= 0);
        RC_ASSERT(member->offset + member->bytes <= static_cast<int64_t>(archive.size()));
      } catch (const Error& error) {
        RC_ASSERT(error.kind() == ErrorKind::kData);
      }
    }
    RC_FAIL("no end");
  });
}

}  // namespace
}  // namespace fathom::tar_test
