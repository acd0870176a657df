// Where a licence is looked for. No environment and no files: both are maps.
#define CAF_SUITE license_search
#include "test/unit/license/license_test.hpp"
#include "wire/license_file.hpp"
#include "wire/license_search.hpp"

#include <caf/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include <sys/stat.h>

using namespace memkv::wire;
using namespace memkv::wire::test;

namespace {

constexpr const char* advice = "; set MEMKV_LICENSE to a license or the path of one (docs/license.md)";

struct machine {
  std::map<std::string, std::string> variables;
  std::map<std::string, std::string> files;
  std::map<std::string, license_text> odd; // files that cannot be read
  std::vector<std::string> asked;

  found_license find(const license_place& first = {"--license", ""}) {
    return find_license(
        first,
        [this](const char* name) {
          const auto at = variables.find(name);
          return at == variables.end() ? nullptr : at->second.c_str();
        },
        [this](const std::string& path) {
          asked.push_back(path);
          if (const auto at = odd.find(path); at != odd.end())
            return at->second;
          const auto at = files.find(path);
          return at == files.end()
                     ? license_text{license_text::outcome::absent, {}, "No such file or directory"}
                     : license_text{license_text::outcome::read, at->second, {}};
        },
        accepted_keys(), noon_s);
  }
};

std::string token_named(const std::string& organization) {
  auto wanted = some_license();
  wanted.organization = organization;
  return token_of(wanted);
}

std::string organization_of(const found_license& found) {
  return found.verdict.ok() ? found.verdict.granted->organization : found.verdict.problem;
}

const license_text forbidden{license_text::outcome::forbidden, {}, "Permission denied"};

} // namespace

CAF_TEST(the places are looked at in their order and the first that names something decides) {
  machine here;
  const std::vector<std::string> known{"/etc/memkv/memkv.license", "/etc/memkv/minio.license",
                                       "/h/me/.memkv/memkv.license", "/h/me/.memkv/minio.license",
                                       "/h/me/.minio/minio.license"};
  CAF_CHECK(well_known_licenses("/h/me") == known);
  here.variables["HOME"] = "/h/me";
  for (const auto& path : known)
    here.files[path] = token_named(path);
  for (const auto* name : {"MEMKV_LICENSE", "AISTOR_LICENSE", "MINIO_LICENSE"})
    here.variables[name] = token_named(name);
  CAF_CHECK_EQUAL(organization_of(here.find({"--license", token_named("flag")})), "flag");
  for (const auto* name : {"MEMKV_LICENSE", "AISTOR_LICENSE", "MINIO_LICENSE"}) {
    const auto found = here.find();
    CAF_CHECK_EQUAL(organization_of(found), name);
    CAF_CHECK_EQUAL(found.source, name);
    CAF_CHECK_EQUAL(found.path, "");
    here.variables[name] = ""; // set to nothing: as if not set
  }
  for (const auto& path : known) {
    const auto found = here.find();
    CAF_CHECK_EQUAL(organization_of(found), path);
    CAF_CHECK_EQUAL(found.path, path);
    here.files.erase(path);
  }
  CAF_CHECK_EQUAL(organization_of(here.find()),
                  "no license found: looked for one in --license, MEMKV_LICENSE, AISTOR_LICENSE, "
                  "MINIO_LICENSE, /etc/memkv/memkv.license, /etc/memkv/minio.license, "
                  "/h/me/.memkv/memkv.license, /h/me/.memkv/minio.license, /h/me/.minio/minio.license" +
                      std::string(advice));
}

CAF_TEST(a value is a token or the path of a file with blanks around it) {
  machine here;
  here.files["some/path"] = "\n  " + token_named("file") + " \r\n";
  here.variables["MEMKV_LICENSE"] = "some/path";
  const auto found = here.find();
  CAF_CHECK_EQUAL(organization_of(found), "file");
  CAF_CHECK_EQUAL(found.source, "MEMKV_LICENSE");
  CAF_CHECK_EQUAL(found.path, "some/path");
  here.variables["MEMKV_LICENSE"] = " " + token_named("inline") + "\n";
  CAF_CHECK_EQUAL(organization_of(here.find()), "inline");
  CAF_CHECK(is_inline_license("eyJhbGciOiJFUzM4NCJ9.x.y"));
  CAF_CHECK(!is_inline_license("eyJ/x.y.z"));
  CAF_CHECK(!is_inline_license("/etc/memkv/memkv.license"));
}

CAF_TEST(what is named and cannot be used ends the search with its name) {
  machine here;
  here.files["/etc/memkv/memkv.license"] = token_named("never");
  here.variables["MEMKV_LICENSE"] = token_named("never");
  CAF_CHECK_EQUAL(here.find({"--license", "no/such"}).verdict.problem,
                  "--license: the license file no/such cannot be read: No such file or directory");
  here.variables["MEMKV_LICENSE"] = "eyJ.cut.off";
  CAF_CHECK_EQUAL(here.find().verdict.problem,
                  "MEMKV_LICENSE: the license is not a JWT: a part of it is not base64url, or was cut off");
  here.files["empty"] = " \n";
  here.variables["MEMKV_LICENSE"] = "empty";
  CAF_CHECK_EQUAL(here.find().verdict.problem, "MEMKV_LICENSE: empty: the license is empty");
  here.variables.erase("MEMKV_LICENSE");
  auto old = some_license();
  old.issued_at_s = noon_s - 2 * day_s;
  old.expires_at_s = noon_s - day_s;
  here.files["/etc/memkv/memkv.license"] = token_of(old);
  CAF_CHECK_EQUAL(here.find().verdict.problem,
                  "/etc/memkv/memkv.license: the license ended at 2027-01-14T08:00:00Z: get a new one");
  here.variables["MEMKV_LICENSE"] = "secret";
  here.odd["secret"] = forbidden;
  CAF_CHECK_EQUAL(here.find().verdict.problem,
                  "MEMKV_LICENSE: the license file secret cannot be read: Permission denied");
}

CAF_TEST(a license that passes for a path is not repeated in the sentence) {
  machine here;
  const auto token = token_named("secret");
  for (const auto& value :
       {"\"" + token + "\"", "Bearer " + token, token.substr(0, 40) + "/" + token.substr(40),
        "/etc/memkv/" + token, "license: " + token,
        std::string{"eyJhbGciOiJFUzM4NCJ9/"} + std::string(40, 'x')}) {
    here.variables["MEMKV_LICENSE"] = value;
    const auto found = here.find();
    CAF_CHECK_EQUAL(found.verdict.problem.substr(0, 56),
                    "MEMKV_LICENSE: the value is no path of a file, and looks");
    CAF_CHECK_EQUAL(found.verdict.problem.find("eyJ"), std::string::npos);
    CAF_CHECK_EQUAL(found.path, "");
  }
  // Who names a file so gets it.
  here.files["/etc/" + token] = token;
  here.variables["MEMKV_LICENSE"] = "/etc/" + token;
  CAF_CHECK_EQUAL(organization_of(here.find()), "secret");
}

CAF_TEST(a well known file that belongs to somebody else is passed over and told) {
  machine here;
  here.odd["/etc/memkv/memkv.license"] = forbidden;
  CAF_CHECK_EQUAL(organization_of(here.find()),
                  "no license found: looked for one in --license, MEMKV_LICENSE, AISTOR_LICENSE, "
                  "MINIO_LICENSE, /etc/memkv/memkv.license (which may not be read), "
                  "/etc/memkv/minio.license" +
                      std::string(advice));
  here.files["/etc/memkv/minio.license"] = token_named("second");
  CAF_CHECK_EQUAL(organization_of(here.find()), "second");
  here.odd["/etc/memkv/minio.license"] = {license_text::outcome::failed, {}, "it is no regular file"};
  CAF_CHECK_EQUAL(organization_of(here.find()),
                  "the license file /etc/memkv/minio.license cannot be read: it is no regular file");
}

CAF_TEST(a path that is no path of a home is not looked at) {
  machine here;
  here.variables["HOME"] = "relative";
  here.find();
  CAF_CHECK_EQUAL(here.asked.size(), 2u);
}

CAF_TEST(files are read whole or not at all) {
  std::string name = (std::filesystem::temp_directory_path() / "memkv-license-XXXXXX").string();
  CAF_REQUIRE(::mkdtemp(name.data()) != nullptr);
  const std::filesystem::path folder = name;
  using outcome = license_text::outcome;
  const auto path = (folder / "license").string();
  CAF_CHECK(read_license_file(path).result == outcome::absent);
  CAF_CHECK(read_license_file(path + "/below").result == outcome::absent);
  std::ofstream{path} << std::string(license_file_bytes_max, 'x');
  CAF_CHECK_EQUAL(read_license_file(path).text.size(), license_file_bytes_max);
  CAF_CHECK(read_license_file(path + "/below").result == outcome::absent);
  std::ofstream{path} << std::string(license_file_bytes_max + 1, 'x');
  CAF_CHECK(read_license_file(path).result == outcome::too_long);
  CAF_CHECK_EQUAL(read_license_file(path).problem, "it is too long for a license");
  CAF_CHECK_EQUAL(read_license_file(folder.string()).problem, "it is no regular file");
  const auto pipe = (folder / "pipe").string();
  CAF_REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CAF_CHECK_EQUAL(read_license_file(pipe).problem, "it is no regular file");
  CAF_CHECK_EQUAL(read_license_file("/dev/zero").problem, "it is no regular file");
  std::filesystem::remove_all(folder);
}
