// The table itself: all commands, flags and arguments of the program.
#include "cli/command_line.hpp"

#include <algorithm>
#include <array>

namespace memkv::cli {

namespace {

constexpr std::array<flag, 6> start_flags{{
    {.name = "config",
     .kind = value_kind::path,
     .value_name = "PATH",
     .default_text = "/etc/memkv/config.yaml",
     .default_is_value = true,
     .help = "YAML configuration file. docs/configuration.md names every key."},
    {.name = "license",
     .kind = value_kind::path,
     .value_name = "PATH",
     .default_text = "unset",
     .empty_is_unset = true,
     .help = "License file, or the license itself. Comes before MEMKV_LICENSE, AISTOR_LICENSE, MINIO_LICENSE "
             "and the well-known files. Accepted plans: Free, Enterprise, EnterpriseLite, EnterprisePlus. "
             "docs/license.md says more."},
    {.name = "log-level",
     .kind = value_kind::text,
     .value_name = "STRING",
     .default_text = "from config",
     .help = "Overrides logging.level. A level (trace, debug, info, warn, error, off), or target=level pairs "
             "such as "
             "memkv_server=debug,info."},
    {.name = "log-file",
     .kind = value_kind::path,
     .value_name = "PATH",
     .default_text = "memkv.log",
     .default_is_value = true,
     .help = "File to append the log to; none means standard error. Text or JSON follows logging.format."},
    {.name = "log-write-timing",
     .kind = value_kind::optional_integer,
     .value_name = "SEC",
     .default_text = "disabled",
     .bare_value = "3600",
     .least = 1,
     .help = "Logs how long single writes take, at most once in SEC seconds. Without a value: 3600."},
    {.name = "fault-injection",
     .kind = value_kind::optional_text,
     .value_name = "HOW",
     .default_text = "off",
     .bare_value = "on",
     .help = "Lets POST /v1/faults from this machine make the server fail: for tests only. Refused with a "
             "release license unless HOW is force. docs/faults.md says more."},
}};

constexpr flag servers_flag{
    .name = "servers",
    .letter = 's',
    .kind = value_kind::text,
    .value_name = "LIST",
    .default_text = "MEMKV_SERVERS, else 127.0.0.1:9900",
    .help = "Servers as host:port, with commas between. A key belongs to one of them, whatever their order."};
constexpr flag namespace_flag{.name = "namespace",
                              .letter = 'n',
                              .kind = value_kind::text,
                              .value_name = "NAME",
                              .default_text = "the default one",
                              .help = "Namespace (tenant) of the keys."};
constexpr flag deadline_flag{.name = "deadline-ms",
                             .kind = value_kind::integer,
                             .value_name = "MS",
                             .default_text = "30000",
                             .default_is_value = true,
                             .least = 1,
                             .help = "Time for the whole command, in milliseconds, 1 to 600000."};
constexpr flag hex_flag{
    .name = "hex", .letter = 'x', .help = "Keys are written in hexadecimal, two digits a byte."};
constexpr flag json_flag{.name = "json", .help = "Prints JSON, one object a line."};
constexpr flag quiet_flag{
    .name = "quiet",
    .letter = 'q',
    .help = "Shows no progress. Without it, values of 16 MiB and more show some on a terminal."};

constexpr std::array<flag, 6> put_flags{
    {servers_flag,
     namespace_flag,
     deadline_flag,
     hex_flag,
     {.name = "if-absent", .help = "Leaves a block that is there already as it is, and exits with 1."},
     quiet_flag}};
constexpr std::array<flag, 8> get_flags{
    {servers_flag,
     namespace_flag,
     deadline_flag,
     hex_flag,
     {.name = "output",
      .letter = 'o',
      .kind = value_kind::path,
      .value_name = "PATH",
      .default_text = "standard output",
      .help = "File to write the value to, - for standard output. It appears only when every byte was "
              "verified."},
     {.name = "offset",
      .kind = value_kind::size,
      .value_name = "SIZE",
      .default_text = "0",
      .default_is_value = true,
      .help = "First byte wanted."},
     {.name = "length",
      .kind = value_kind::size,
      .value_name = "SIZE",
      .default_text = "to the end",
      .help = "Number of bytes wanted."},
     quiet_flag}};
constexpr std::array<flag, 6> exists_flags{
    {servers_flag,
     namespace_flag,
     deadline_flag,
     hex_flag,
     {.name = "prefix",
      .help = "Takes the keys as one chain and prints how many from its start are there, and their bytes."},
     json_flag}};
constexpr std::array<flag, 4> delete_flags{{servers_flag, namespace_flag, deadline_flag, hex_flag}};
constexpr std::array<flag, 5> stat_flags{{servers_flag, namespace_flag, deadline_flag, hex_flag, json_flag}};

constexpr argument key_argument{.name = "KEY", .help = "Name of the block, 1 to 1024 bytes."};
constexpr argument keys_argument{
    .name = "KEY", .repeated = true, .help = "Names of blocks, 1 to 1024 bytes each."};
constexpr std::array<argument, 2> put_arguments{
    {key_argument,
     {.name = "FILE",
      .required = false,
      .help = "File that holds the value; - or nothing: standard input."}}};
constexpr std::array<argument, 1> get_arguments{{key_argument}};
constexpr std::array<argument, 1> keys_arguments{{keys_argument}};
constexpr std::array<argument, 1> stat_arguments{
    {{.name = "KEY",
      .required = false,
      .repeated = true,
      .help = "Names of blocks to describe. Without one: the servers themselves."}}};

constexpr std::array<command, 5> client_commands{
    {{.name = "put",
      .summary = "Store a value under a key",
      .text = "Stores a value from a file or from standard input. A block that has the key is replaced. "
              "Exits with 0 "
              "once the server has acknowledged it.",
      .flags = put_flags,
      .arguments = put_arguments},
     {.name = "get",
      .summary = "Fetch the value of a key",
      .text = "Writes the value, verified, to standard output or to a file. Exits with 1 if there is no such "
              "block.",
      .flags = get_flags,
      .arguments = get_arguments},
     {.name = "exists",
      .summary = "Ask whether keys are stored",
      .text = "Prints one line for each key: its state and its size. Exits with 1 if any is not stored.",
      .flags = exists_flags,
      .arguments = keys_arguments},
     {.name = "delete",
      .summary = "Delete the blocks of keys",
      .text = "Deletes blocks. A block that is not there is reported, and then the exit code is 1.",
      .flags = delete_flags,
      .arguments = keys_arguments},
     {.name = "stat",
      .summary = "Describe blocks or servers",
      .text =
          "Prints size, generation and checksum of blocks; without keys, what each server says of itself.",
      .flags = stat_flags,
      .arguments = stat_arguments}}};

constexpr std::array<flag, 5> setup_flags{
    {{.name = "drives",
      .kind = value_kind::path_list,
      .value_name = "PATH",
      .required = true,
      .help = "One or more NVMe block devices to format. All drives are owned exclusively by memkv after "
              "setup."},
     {.name = "shard-size",
      .kind = value_kind::integer,
      .value_name = "KB",
      .default_text = "64",
      .default_is_value = true,
      .least = 4,
      .help = "Minimum shard size in kilobytes, a power of two from 4 to 32768: the unit in which space is "
              "given out (storage.shard_size). Values from 1024 on set storage.block_size to as many bytes; "
              "smaller ones keep its default."},
     {.name = "rdma",
      .kind = value_kind::text,
      .value_name = "STRING",
      .default_text = "mlx5_0",
      .default_is_value = true,
      .help = "RDMA device name written into rdma.device of the generated YAML; none: no section rdma, for a "
              "server that is to do without."},
     {.name = "force",
      .help = "Reformat drives even if they hold memkv data, a file system or partitions. Destroys all "
              "existing data on the listed devices. What is mounted or otherwise in use is refused all the "
              "same."},
     {.name = "idempotent",
      .help = "Exit 0 without rewriting if every drive is already initialised and all of them are one set in "
              "this order. Mixed state (some fresh, some initialised) still fails: combine with --force to "
              "reformat anyway. For orchestrators that run setup on every restart."}}};

constexpr flag quick_check_flag{
    .name = "quick", .letter = 'q', .help = "Skips the blocks' data: checks metadata only."};
constexpr flag json_report_flag{
    .name = "json", .help = "Prints the report as JSON (docs/drive-json.md) instead of a summary."};
constexpr std::array<flag, 1> reset_flags{
    {{.name = "secure",
      .help = "Overwrites the data region with zeros after it was discarded: slower, but nothing is left "
              "whatever the drive makes of a discard."}}};
constexpr std::array<flag, 2> verify_flags{{quick_check_flag, json_report_flag}};
constexpr std::array<flag, 3> fsck_flags{
    {{.name = "repair",
      .help = "Repairs in place. Without it nothing is written, and the report says what a repair would do."},
     quick_check_flag,
     json_report_flag}};
constexpr std::array<flag, 1> health_flags{{json_report_flag}};
constexpr std::array<argument, 1> drive_arguments{
    {{.name = "PATH", .help = "The drive: a block device, or the file of a drive of file mode."}}};

constexpr std::array<command, 4> drive_commands{
    {{.name = "reset",
      .summary = "Empty a drive and clear its failures",
      .text =
          "Reads the superblock of the drive, or its mirror, for the set and the place it belongs to, wipes "
          "superblocks, journal, tree and bitmap, discards the rest, and writes a new, empty format for the "
          "same place. The failure registry is cleared: a blacklisted drive is active at the next start. A "
          "drive that was never memkv's is refused.",
      .flags = reset_flags,
      .arguments = drive_arguments},
     {.name = "verify",
      .summary = "Check everything on a drive, and write nothing",
      .text =
          "Checks, in this order: both superblocks; every page of the tree region; the journal, replayed in "
          "memory when the drive was not closed in order; the bitmap against the blocks, both ways; and "
          "every byte of every stored block. Exits with 0 if the drive is clean, and with 1 while any "
          "error is uncorrected.",
      .flags = verify_flags,
      .arguments = drive_arguments},
     {.name = "fsck",
      .summary = "Check a drive, and repair it if asked to",
      .text =
          "Runs the checks of verify. With --repair the tree is made anew from the entries that survive, the "
          "bitmap from the tree, the journal is emptied, and the drive counts as closed in order. Blocks "
          "whose bytes or whose state cannot be proven are dropped: they become misses, since their bytes "
          "exist nowhere else. A repair that was cut short can be run again. Exits with 0 if no error is "
          "left, else with 1.",
      .flags = fsck_flags,
      .arguments = drive_arguments},
     {.name = "health",
      .summary = "Show the state of a drive",
      .text =
          "Prints model, capacity, fill, whether the drive was closed in order, its journal, and its failure "
          "registry. Reads metadata only, and writes nothing.",
      .flags = health_flags,
      .arguments = drive_arguments}}};

constexpr flag admin_servers_flag{
    .name = "servers",
    .letter = 's',
    .kind = value_kind::text,
    .value_name = "LIST",
    .default_text = "MEMKV_SERVERS, else http://127.0.0.1:9901",
    .help = "Servers with commas between: host:port, http://host:port or https://host:port; without a port "
            "9901. Blanks and empty entries are dropped."};
constexpr flag admin_timeout_flag{
    .name = "timeout-ms",
    .kind = value_kind::integer,
    .value_name = "MS",
    .default_text = "5000",
    .least = 1,
    .help = "Time for all servers together, in milliseconds, 1 to 600000: they are asked at the same time."};
constexpr flag ca_file_flag{.name = "ca-file",
                            .kind = value_kind::path,
                            .value_name = "PATH",
                            .default_text = "the system's",
                            .help = "Certificates in PEM that https servers are trusted by."};
constexpr flag insecure_flag{.name = "insecure", .help = "Does not check the certificates of https servers."};

// The group takes the flags of its commands as well, so that they may stand before the command.
constexpr std::array<flag, 4> admin_flags{
    {admin_servers_flag, admin_timeout_flag, ca_file_flag, insecure_flag}};
constexpr std::array<flag, 6> admin_status_flags{
    {{.name = "json",
      .help = "Prints the document of each server as it is, with a labelled rule before each of several."},
     {.name = "verbose",
      .help = "Prints everything about each server: uptime, memory pool, drives, RDMA connections, blocks, "
              "actors."},
     admin_servers_flag,
     admin_timeout_flag,
     ca_file_flag,
     insecure_flag}};
constexpr std::array<flag, 5> admin_failed_flags{
    {{.name = "json",
      .help = "Prints the list of each server as it is, with a labelled rule before each of several."},
     admin_servers_flag,
     admin_timeout_flag,
     ca_file_flag,
     insecure_flag}};
constexpr std::array<flag, 5> admin_reset_flags{
    {{.name = "secure",
      .help = "Overwrites the data region with zeros after it was discarded. On a terminal the command shows "
              "how far it is and ends when it is done."},
     admin_servers_flag,
     admin_timeout_flag,
     ca_file_flag,
     insecure_flag}};
constexpr std::array<argument, 1> device_arguments{
    {{.name = "DEVICE_ID", .help = "Number of the drive, as memkv admin drives failed shows it."}}};

constexpr std::array<command, 2> admin_drives_commands{
    {{.name = "failed",
      .summary = "List drives that failed",
      .text = "Prints a table for each server: the drives that have failed since their registry was last "
              "cleared, or that are not online.",
      .flags = admin_failed_flags},
     {.name = "reset",
      .summary = "Empty a drive that is offline, and let it join again",
      .text =
          "Asks one server to discard everything on a drive and to write a new, empty format. A drive that "
          "is online is refused, and so is one that is blacklisted: memkv drive reset, with the server "
          "stopped, is for that. Waits for the outcome; with --secure and without a terminal only until the "
          "drive is being overwritten. Exactly one server must be named. The request is signed when "
          "MEMKV_AUTH_KEY is set, or when the file that MEMKV_CONFIG names holds the key; without a key it "
          "is accepted from the server's own machine.",
      .flags = admin_reset_flags,
      .arguments = device_arguments}}};
constexpr std::array<command, 5> admin_commands{
    {{.name = "health",
      .summary = "Ask whether servers are alive",
      .text = "Prints a table of the servers with their status. A server that is unhealthy is an error, one "
              "that is degraded is none.",
      .flags = admin_flags},
     {.name = "ready",
      .summary = "Ask whether servers take requests",
      .text = "Prints a table of the servers. One that is not ready is an error.",
      .flags = admin_flags},
     {.name = "status",
      .summary = "Show the state of servers",
      .text = "Prints a table of the servers with their drives, space and blocks, and the sum of them.",
      .flags = admin_status_flags},
     {.name = "metrics",
      .summary = "Print the metrics of servers",
      .text =
          "Prints the exposition for Prometheus as it came; of several servers with a labelled rule, which "
          "is a comment, before each.",
      .flags = admin_flags},
     {.name = "drives",
      .summary = "Look at drives that failed, and reset one",
      .text = "Commands about the drives of running servers.",
      .flags = admin_flags,
      .commands = admin_drives_commands}}};

constexpr std::array<flag, 4> doctor_flags{
    {{.name = "config",
      .kind = value_kind::path,
      .value_name = "PATH",
      .default_text = "/etc/memkv/config.yaml",
      .default_is_value = true,
      .help = "YAML configuration file, as for start."},
     {.name = "servers",
      .letter = 's',
      .kind = value_kind::text,
      .value_name = "LIST",
      .default_text = "MEMKV_SERVERS, else none",
      .help =
          "Running servers as host:port, with commas between, whose clocks are compared with this one's."},
     {.name = "log-file",
      .kind = value_kind::path,
      .value_name = "PATH",
      .default_text = "memkv.log",
      .default_is_value = true,
      .help = "The file that start will be given for its log; none means standard error."},
     {.name = "json",
      .help = "Prints the report as one JSON document (docs/doctor.md) instead of a table."}}};

constexpr std::array<flag, 1> doc_flags{{{.name = "port",
                                          .kind = value_kind::integer,
                                          .value_name = "PORT",
                                          .default_text = "any free one",
                                          .help = "Port to listen on, on the loopback interface alone."}}};

constexpr std::array<command, 7> top_commands{
    {{.name = "setup",
      .summary = "Initialize drives and generate config",
      .text =
          "Formats the listed block devices as one set of drives and prints the configuration of a server on "
          "them (YAML) to standard output; the log goes to standard error, so that standard output can be "
          "piped into a file. The pool of buffers (memory.max_size) is half of the available memory, at "
          "least 1 GiB. No drive is written to before all of them were looked at: without --force a "
          "drive that holds anything is refused by name. Exits with 1, and prints no YAML, if a drive is "
          "missing, holds data, is in use, or cannot be formatted.",
      .flags = setup_flags},
     {.name = "start",
      .summary = "Start the server",
      .text = "Runs the server in the foreground until SIGINT or SIGTERM, which flush the metadata of the "
              "storage. "
              "The authentication key comes from MEMKV_AUTH_KEY or from network.auth_key. Needs a license, "
              "and Linux 6.8 or newer. Exits with 1 when the license ends, after the metadata was flushed.",
      .flags = start_flags},
     {.name = "admin",
      .summary = "Query the administration endpoint of servers",
      .text = "Asks one or more running servers over HTTP or HTTPS, all at the same time, and shows every "
              "failure before it exits. Exits with 0 only if every server answered, and answered well.",
      .flags = admin_flags,
      .commands = admin_commands},
     {.name = "doctor",
      .summary = "Prove on this machine what a configuration promises",
      .text =
          "Checks kernel, io_uring, memory, limits, ports, drives, keys, certificate, network devices and "
          "clocks against a configuration, and prints one line a check: its state (ok, warning, failed or "
          "skipped), what was found, and what to do about it. Drives are opened and read, never written "
          "to. Exits with 1 if a check failed; docs/doctor.md names the checks.",
      .flags = doctor_flags},
     {.name = "drive",
      .summary = "Offline drive maintenance",
      .text = "Works on a drive directly. The server must be stopped: a drive that is in use is refused.",
      .commands = drive_commands},
     {.name = "client",
      .summary = "Put and get blocks by hand",
      .text = "Talks to one or more running servers. The authentication key comes from MEMKV_AUTH_KEY or "
              "from the "
              "file that MEMKV_CONFIG names; every other MEMKV_* variable of the client library counts too.",
      .commands = client_commands},
     {.name = "doc",
      .summary = "Serve the documentation of this build",
      .text =
          "Prints an address of this machine, http://127.0.0.1:PORT/, and answers there with the pages that "
          "belong to this build, until SIGINT or SIGTERM. Needs neither a license nor a configuration.",
      .flags = doc_flags}}};

constexpr std::array<flag, 2> top_flags{
    {{.name = "version", .letter = 'V', .help = "Prints the version of this build and exits."},
     {.name = "help-markdown",
      .kind = value_kind::optional_text,
      .value_name = "PAGE",
      .default_text = "off",
      .bare_value = "cli",
      .help = "Prints a reference page as Markdown and exits: cli or configuration."}}};

constexpr command top{
    .name = "memkv",
    .summary = "A store for the KV cache of LLM inference",
    .text =
        "Keeps blocks of bytes under keys, outside the GPU, and gives them back to any inference engine. The "
        "store may forget a block; it never returns a wrong one.",
    .flags = top_flags,
    .commands = top_commands};

} // namespace

const command& memkv_commands() noexcept {
  return top;
}

} // namespace memkv::cli
