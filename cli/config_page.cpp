#include "cli/config_page.hpp"

#include "cli/config.hpp"

namespace memkv::cli {

std::string configuration_markdown() {
  std::string text = R"(# Configuration

This page is printed by `memkv --help-markdown=configuration`, from the table that the program reads by; a
test compares the two.

`memkv start` reads one YAML file, by default `/etc/memkv/config.yaml`. A small one:

```yaml
network:
  address: 0.0.0.0:9900
memory:
  max_size: 1 GiB
storage:
  mode: file
  drives:
    - { media: /var/lib/memkv/drive0, max_size: 100 GiB }
```

The authentication key comes from `MEMKV_AUTH_KEY` or from `network.auth_key`; make one with `openssl rand
-hex 32`. A key of zeros, or one that repeats itself, is refused. There is no server without a key. A file
that holds the key should be readable by its owner only; `start` warns when it is not.

## Rules

The file is read strictly. An unknown key, a key that stands twice, a wrong type, a wrong unit, a value out
of range: each is refused with the line, the full key and what to do, and nothing is started. So are
anchors, aliases, merge keys, tags, and files above 1 MiB.

- *size*: `64 KiB`, `4 MiB`, `247 GiB`, `1.5 TiB` (1 KiB is 1024 bytes); `10 MB` (1 MB is 1,000,000 bytes);
  a number alone is bytes.
- *time*: `500 ms`, `30 s`, `5 min`, `1 h`.
- *percent*: `95` or `95 %`.
- *bool*: `true` or `false`.

A key whose feature this build does not have is checked like all others, and `start` logs a warning for each
that it is not in effect.

## Keys

)";
  text += config_keys_markdown();
  text += R"(
## What start checks of the machine

- Linux 6.8 or newer.
- `memory.max_size` together with the drives of memory mode fits into 80 % of the available memory; or
  `memory.max_size` fits into free hugepages and the memory drives into those 80 %.
- The index. Each block in the store costs about 100 bytes of memory; the largest number of blocks is the
  size of the drives divided by `storage.shard_size`. Where this could outgrow the available memory, `start`
  refuses; where it could take more than 80 % together with the rest, it warns. A larger
  `storage.shard_size` needs less. In direct mode it never refuses for this: it logs how many blocks the
  memory can index, and older ones are dropped beyond that.
)";
  return text;
}

} // namespace memkv::cli
