#include "cli/drive_tool.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace memkv::cli {

std::string opened_drive::model() const {
  if (is_file)
    return "regular file";
  return facts.model.empty() ? "unknown" : facts.model;
}

namespace {

// Whether somebody has the device for itself: a server, a file system, another tool.
bool is_claimed(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC);
  if (file >= 0)
    ::close(file);
  return file < 0 && errno == EBUSY;
}

} // namespace

std::string open_for_tool(const std::string& path, drive_access access, const std::string& root,
                          opened_drive& out) {
  const path_facts found = look_at_path(path);
  if (found.kind == path_kind::missing)
    return found.problem;
  if (found.kind == path_kind::other)
    return path + " is neither a block device nor a regular file: name a drive";
  opened_drive drive;
  drive.path = path;
  drive.is_file = found.kind == path_kind::regular_file;
  if (!drive.is_file) {
    std::string problem;
    if (!read_device_facts(root, found.number, drive.facts, problem))
      return path + ": " + problem;
    if (const auto use = drive.facts.in_use(); !use.empty())
      return path + " " + use;
    for (const auto& twin : drive.facts.twins)
      if (is_claimed(twin))
        return path + " is a loop device on the same file as " + twin +
               ", which is in use: stop the server that has it, or whoever else does, and name one of the "
               "two";
    if (access == drive_access::write && drive.facts.read_only)
      return path + " is read-only: make it writable, or name another drive";
  }
  // Who uses a loop device cannot be seen at its file, and what it holds back would be written over us.
  if (const auto device = drive.is_file ? loop_device_on(root, path) : std::string{}; !device.empty())
    return path + " is in use by " + device + ": name that device, or detach the file with losetup -d " +
           device;
  engine::uring_device_options options;
  options.path = path;
  options.read_only = access == drive_access::read;
  options.allow_file = true;
  if (const auto opened = engine::open_uring_device(options, drive.device); !opened.ok())
    return opened.text;
  if (access == drive_access::write && !drive.is_file)
    if (const auto opened = engine::open_discarder(path, drive.discarder); !opened.ok())
      return opened.text;
  out = std::move(drive);
  return {};
}

int refuse_drive(const std::string& sentence) {
  std::fprintf(stderr, "memkv: %s\n", sentence.c_str());
  return 1;
}

int finish_drive_output(int code) {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return refuse_drive("standard output cannot be written");
  return code;
}

} // namespace memkv::cli
