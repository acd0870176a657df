// Bytes, checksums, key ids, keys and MACs: what the rest of the protocol stands on.
#define CAF_SUITE wire_leaf

#include "wire_test.hpp"

#include "wire/hex.hpp"
#include "wire/payload_digest.hpp"
#include "wire/text.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <set>

using namespace memkv::wire;
using namespace memkv::wire::test;

namespace {

// The definition of CRC32C, bit by bit.
std::uint32_t slow_crc32c(bytes_view bytes) {
  std::uint32_t state = ~std::uint32_t{0};
  for (const std::byte byte : bytes) {
    state ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit)
      state = (state & 1) ? (state >> 1) ^ 0x82F63B78U : state >> 1;
  }
  return ~state;
}

constexpr std::array every_method{crc32c_method::instructions, crc32c_method::mixed, crc32c_method::tables};

std::string refused_key(std::string_view text) {
  std::string_view problem;
  return shared_key::parse(text, &problem) ? "accepted" : std::string(problem);
}

} // namespace

CAF_TEST(integers lie little endian at any alignment) {
  const buffer bytes = from_hex("ff0102030405060708");
  CAF_CHECK(load_le<std::uint16_t>(bytes.data() + 1) == 0x0201);
  CAF_CHECK(load_le<std::uint32_t>(bytes.data() + 1) == 0x04030201);
  CAF_CHECK(load_le<std::uint64_t>(bytes.data() + 1) == 0x0807060504030201);
  buffer written(9);
  store_le(written.data() + 1, std::uint64_t{0x0807060504030201});
  CAF_CHECK(to_hex(written) == "000102030405060708");
  CAF_CHECK(memkv::wire::detail::byte_swapped(std::uint32_t{0x01020304}) == 0x04030201);
  CAF_CHECK(memkv::wire::detail::byte_swapped(std::uint8_t{7}) == 7);
}

CAF_TEST(a reader behind its end stays failed and gives zeros) {
  const buffer bytes = from_hex("010203");
  byte_reader reader(bytes);
  CAF_CHECK(reader.read<std::uint16_t>() == 0x0201);
  CAF_CHECK(reader.read<std::uint16_t>() == 0);
  CAF_CHECK(reader.failed());
  CAF_CHECK(reader.read<std::uint8_t>() == 0);
  CAF_CHECK(!reader.finished());
  byte_reader zeros(bytes);
  zeros.read_zeros(1);
  CAF_CHECK(zeros.failed());
}

CAF_TEST(a writer behind its end stays failed and touches nothing) {
  buffer room(4);
  byte_writer writer(bytes_span(room).first(3));
  writer.write(std::uint16_t{0xFFFF});
  writer.write(std::uint16_t{0xFFFF});
  CAF_CHECK(writer.failed());
  writer.write_bytes(from_hex("ff"));
  writer.write_zeros(1);
  CAF_CHECK(to_hex(room) == "ffff0000");
}

CAF_TEST(zero is told from not zero at every position) {
  for (std::size_t size = 0; size < 40; ++size) {
    buffer bytes(size);
    CAF_REQUIRE(all_zero(bytes));
    for (std::size_t i = 0; i < size; ++i) {
      bytes[i] = std::byte{0x80};
      CAF_REQUIRE(!all_zero(bytes));
      bytes[i] = std::byte{0};
    }
  }
}

CAF_TEST(the checksum is CRC32C as published) {
  CAF_CHECK_EQUAL(crc32c(as_bytes_view("123456789")), 0xE3069283U);
  CAF_CHECK_EQUAL(crc32c({}), 0U);
  CAF_CHECK_EQUAL(crc32c(buffer(32)), 0x8A9136AAU);
}

CAF_TEST(the checksum equals its definition at every length and alignment) {
  generator random;
  const buffer bytes = random.bytes(1500);
  for (std::size_t begin = 0; begin < 9; ++begin)
    for (std::size_t size = 0; size < 1400; size += size < 300 ? 1 : 37)
      for (const auto method : every_method)
        if (crc32c_available(method) && crc32c_by(method, bytes_view(bytes).subspan(begin, size)) !=
                                            slow_crc32c(bytes_view(bytes).subspan(begin, size)))
          CAF_FAIL("wrong at " << begin << "+" << size << " " << random.hint());
}

CAF_TEST(every way of computing the checksum gives the same at lengths around its blocks) {
  generator random;
  const buffer bytes = random.bytes(300'000);
  const bytes_view all(bytes);
  for (int round = 0; round < 400; ++round) {
    // Half of them within a few bytes of where blocks of 7,680 and 65,280 bytes begin or end.
    const std::size_t blocks = random.below(4) * 65'280 + random.below(9) * 7'680;
    const std::size_t size = round % 2 == 0 ? random.below(290'000) : blocks + random.below(17);
    const std::size_t begin = random.below(64);
    const auto previous = static_cast<std::uint32_t>(random.below(std::uint64_t{1} << 32U));
    const bytes_view part = all.subspan(begin, size);
    const std::uint32_t right = crc32c_by(crc32c_method::tables, part, previous);
    for (const auto method : every_method)
      if (crc32c_available(method) && crc32c_by(method, part, previous) != right)
        CAF_FAIL("wrong at " << begin << "+" << size << " " << random.hint());
  }
}

CAF_TEST(a checksum notices each single bit of a block that is computed in several ways at a time) {
  generator random;
  buffer bytes = random.bytes(65'280 + 7'680 + 100);
  const std::uint32_t before = crc32c(bytes);
  for (int round = 0; round < 300; ++round) {
    auto& changed = bytes[random.below(bytes.size())];
    const auto bit = std::byte{1} << random.below(8);
    changed ^= bit;
    if (crc32c(bytes) == before)
      CAF_FAIL("unnoticed: " << random.hint());
    changed ^= bit;
  }
  CAF_CHECK_EQUAL(crc32c(bytes), before);
}

CAF_TEST(checksums chain and combine as if computed at once) {
  generator random;
  const buffer bytes = random.bytes(2 * limits::mib + 100);
  const bytes_view all(bytes);
  for (const std::size_t cut :
       {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{65536}, std::size_t{100000}}) {
    const std::uint32_t a = crc32c(all.first(cut));
    const std::uint32_t b = crc32c(all.subspan(cut));
    CAF_CHECK_EQUAL(crc32c(all.subspan(cut), a), crc32c(all));
    CAF_CHECK_EQUAL(crc32c_combine(a, b, all.size() - cut), crc32c(all));
    CAF_CHECK_EQUAL(crc32c_from_behind(all.first(cut)), a);
    CAF_CHECK_EQUAL(crc32c_from_behind(all.subspan(cut)), b);
  }
  for (int round = 0; round < 100; ++round) {
    const std::size_t cut = random.below(1000);
    const std::size_t size = cut + random.below(1000);
    const std::uint32_t a = crc32c(all.first(cut));
    const std::uint32_t b = crc32c(all.subspan(cut, size - cut));
    if (crc32c_combine(a, b, size - cut) != crc32c(all.first(size)))
      CAF_FAIL(random.hint());
  }
}

CAF_TEST(the two tabulated lengths combine like the general one) {
  generator random;
  const buffer bytes = random.bytes(2 * limits::mib);
  const bytes_view all(bytes);
  const std::uint32_t a = crc32c(all.first(777));
  CAF_CHECK_EQUAL(crc32c_combine_64_kib(a, crc32c(all.subspan(777, 64 * limits::kib))),
                  crc32c(all.first(777 + 64 * limits::kib)));
  CAF_CHECK_EQUAL(crc32c_combine_1_mib(a, crc32c(all.subspan(777, limits::mib))),
                  crc32c(all.first(777 + limits::mib)));
  for (int round = 0; round < 1000; ++round) {
    const auto x = random.any<std::uint32_t>();
    const auto y = random.any<std::uint32_t>();
    if (crc32c_combine_64_kib(x, y) != crc32c_combine(x, y, 64 * limits::kib) ||
        crc32c_combine_1_mib(x, y) != crc32c_combine(x, y, limits::mib))
      CAF_FAIL(random.hint());
  }
}

CAF_TEST(every status has its number its name and a sentence) {
  std::set<std::string_view> names;
  for (std::uint8_t code = 0; code <= status_last; ++code) {
    CAF_CHECK(static_cast<std::uint8_t>(status_from(code)) == code);
    names.insert(name(status_from(code)));
    CAF_CHECK(!explain(status_from(code)).empty());
  }
  CAF_CHECK_EQUAL(names.size(), std::size_t{status_last} + 1);
  CAF_CHECK(status_from(status_last + 1) == status::internal);
  CAF_CHECK(status_from(255) == status::internal);
}

CAF_TEST(the status table of the page is the one of the code) {
  std::size_t rows = 0;
  bool inside = false;
  for (const std::string& line : page_lines()) {
    if (line.starts_with("## "))
      inside = line.starts_with("## 11");
    if (!inside || !line.starts_with("| ") || line.size() < 3 || line[2] < '0' || line[2] > '9')
      continue;
    std::istringstream row(line);
    std::string bar;
    unsigned code = 0;
    std::string text;
    row >> bar >> code >> bar >> text;
    CAF_CHECK_EQUAL(text, std::string(name(status_from(static_cast<std::uint8_t>(code)))));
    ++rows;
  }
  CAF_CHECK_EQUAL(rows, std::size_t{status_last} + 1);
}

CAF_TEST(retrying is for what may pass) {
  for (const status code :
       {status::busy, status::unavailable, status::deadline_exceeded, status::digest_mismatch,
        status::internal, status::no_space, status::shutting_down})
    CAF_CHECK(retryable(code));
  for (const status code :
       {status::ok, status::not_found, status::already_exists, status::bad_request, status::too_large,
        status::unsupported, status::unsupported_version, status::out_of_range, status::buffer_too_small,
        status::corrupt, status::keyed_digest_required})
    CAF_CHECK(!retryable(code));
}

CAF_TEST(a namespace is up to 32 of the allowed characters) {
  CAF_CHECK(ns_name::from_text("")->text().empty());
  CAF_CHECK(ns_name::from_text("Tenant-a_1.x")->text() == "Tenant-a_1.x");
  CAF_CHECK(ns_name::from_text(std::string(32, 'z'))->text().size() == 32);
  CAF_CHECK(!ns_name::from_text(std::string(33, 'z')));
  for (int c = 0; c < 256; ++c) {
    const std::string text = {'a', static_cast<char>(c)};
    const bool expected = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                          c == '.' || c == '_' || c == '-';
    if (ns_name::from_text(text).has_value() != expected)
      CAF_FAIL("character " << c);
  }
}

CAF_TEST(a namespace field is filled up with zeros and nothing else) {
  std::array<std::byte, 32> field{};
  CAF_CHECK(ns_name::from_field(field)->text().empty());
  field[0] = std::byte{'a'};
  field[1] = std::byte{'b'};
  CAF_CHECK(ns_name::from_field(field)->text() == "ab");
  CAF_CHECK(*ns_name::from_field(field) == *ns_name::from_text("ab"));
  field[3] = std::byte{'c'};
  CAF_CHECK(!ns_name::from_field(field));
  field[3] = std::byte{0};
  field[31] = std::byte{1};
  CAF_CHECK(!ns_name::from_field(field));
}

CAF_TEST(equal keys in different namespaces have different ids and boundaries do not blur) {
  CAF_CHECK(make_key_id("a", as_bytes_view("bc")) != make_key_id("ab", as_bytes_view("c")));
  CAF_CHECK(make_key_id("", as_bytes_view("abc")) != make_key_id("a", as_bytes_view("bc")));
  CAF_CHECK(make_key_id("", as_bytes_view("abc")) == make_key_id("", as_bytes_view("abc")));
}

CAF_TEST(a key id hashes and orders by its bytes) {
  const key_id id = make_key_id("", as_bytes_view("a"));
  CAF_CHECK(std::hash<key_id>{}(id) == load_le<std::uint64_t>(id.bytes.data()));
  key_id larger = id;
  larger.bytes[15] = std::byte{0xFF};
  key_id smaller = id;
  smaller.bytes[15] = std::byte{0x00};
  CAF_CHECK(smaller < larger);
}

CAF_TEST(the MAC is HMAC SHA 256 as published) {
  // RFC 4231, test case 2: key "Jefe", data "what do ya want for nothing?", split where a header ends.
  const memkv::wire::detail::keyed_hash hash(as_bytes_view("Jefe"));
  memkv::wire::detail::hash_state running;
  hash.begin(running);
  memkv::wire::detail::keyed_hash::update(running, as_bytes_view("what do ya want "));
  memkv::wire::detail::keyed_hash::update(running, as_bytes_view("for nothing?"));
  CAF_CHECK_EQUAL(to_hex(hash.finish(running)),
                  "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CAF_CHECK_EQUAL(to_hex(sha256(as_bytes_view("abc"))),
                  "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

CAF_TEST(a MAC with any single bit changed is refused) {
  const mac signer(page_key());
  const buffer header = bytes_of("some header");
  const hash32 right = signer.sign(header, 42);
  CAF_CHECK(signer.verify(header, 42, right));
  for (std::size_t bit = 0; bit < 256; ++bit) {
    hash32 wrong = right;
    wrong[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    if (signer.verify(header, 42, wrong))
      CAF_FAIL("bit " << bit);
  }
  CAF_CHECK(!signer.verify(header, 43, right));
  CAF_CHECK(!signer.verify(bytes_of("some headeR"), 42, right));
}

CAF_TEST(moving bytes between header and time stamp breaks the MAC) {
  const mac signer(page_key());
  const buffer header = from_hex("0102030405060708aabbccddeeff0011");
  const hash32 right = signer.sign(header, load_le<std::uint64_t>(from_hex("1122334455667788").data()));
  const buffer shorter(header.begin(), header.end() - 1);
  CAF_CHECK(!signer.verify(shorter, load_le<std::uint64_t>(from_hex("1111223344556677").data()), right));
}

CAF_TEST(secrets are compared by the library and never by hand) {
  std::ifstream source(MEMKV_WIRE_SOURCE "/auth.cpp");
  CAF_REQUIRE(source.good());
  const std::string text((std::istreambuf_iterator<char>(source)), std::istreambuf_iterator<char>());
  const std::size_t verify = text.find("bool mac::verify");
  CAF_REQUIRE(verify != std::string::npos);
  const std::string body = text.substr(verify, text.find("\n}\n", verify) - verify);
  CAF_CHECK(body.find("CRYPTO_memcmp") != std::string::npos);
  CAF_CHECK(body.find("==  right") == std::string::npos && body.find("std::equal") == std::string::npos &&
            body.find(" memcmp") == std::string::npos);
}

CAF_TEST(a shared key is 64 digits that are not a pattern) {
  const std::string good = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
  CAF_CHECK(refused_key(good) == "accepted");
  CAF_CHECK(to_hex(page_key().secret_bytes()) == good);
  std::string upper = good;
  for (char& c : upper)
    c = static_cast<char>(std::toupper(c));
  CAF_CHECK(refused_key(upper) == "accepted");
  for (const std::string& bad :
       {std::string(), good.substr(1), good + "0", good.substr(0, 63) + "g", " " + good.substr(1)})
    CAF_CHECK(refused_key(bad) == "the shared key must be exactly 64 hexadecimal digits");
  const auto repeated = [](std::string_view pattern) {
    std::string text;
    while (text.size() < 64)
      text += pattern;
    return text.substr(0, 64);
  };
  for (const std::string_view pattern :
       {"0", "f", "ab", "abc", "0123456789abcdef", "0123456789abcdef0123456789abcde5", "DEADbeef", "12345"})
    CAF_CHECK(refused_key(repeated(pattern)).find("repeats itself") != std::string::npos);
}

CAF_TEST(a generated key survives its way through a file) {
  const shared_key key = shared_key::generate();
  const auto digits = key.hex_digits();
  const auto again = shared_key::parse(std::string_view(digits.data(), digits.size()));
  CAF_REQUIRE(again.has_value());
  CAF_CHECK(to_hex(again->secret_bytes()) == to_hex(key.secret_bytes()));
  CAF_CHECK(to_hex(shared_key::generate().secret_bytes()) != to_hex(key.secret_bytes()));
}

CAF_TEST(wiping leaves zeros and nonces differ) {
  buffer secret = bytes_of("secret");
  wipe(secret);
  CAF_CHECK(all_zero(secret));
  CAF_CHECK(random_nonce() != random_nonce());
}

CAF_TEST(equality in constant time is equality) {
  CAF_CHECK(equal_in_constant_time(bytes_of("abc"), bytes_of("abc")));
  CAF_CHECK(!equal_in_constant_time(bytes_of("abc"), bytes_of("abd")));
  CAF_CHECK(!equal_in_constant_time(bytes_of("abc"), bytes_of("ab")));
  CAF_CHECK(equal_in_constant_time({}, {}));
}

CAF_TEST(a keyed digest depends on everything it names) {
  const buffer key = bytes_of("0123456789abcdef0123456789abcdef");
  payload_digest digest(key);
  const buffer value = bytes_of("value");
  const auto of = [&](digest_kind kind, direction from, std::uint64_t id, std::uint32_t part,
                      std::uint32_t item, bytes_view bytes) {
    digest.begin(kind, from, id, part, item);
    digest.update(bytes.first(bytes.size() / 2));
    digest.update(bytes.subspan(bytes.size() / 2));
    return digest.finish();
  };
  using enum direction;
  std::set<std::string> seen;
  seen.insert(to_hex(of(digest_kind::keyed, request, 1, 0, 0, value)));
  seen.insert(to_hex(of(digest_kind::keyed, reply, 1, 0, 0, value)));
  seen.insert(to_hex(of(digest_kind::keyed, request, 2, 0, 0, value)));
  seen.insert(to_hex(of(digest_kind::keyed, request, 1, 1, 0, value)));
  seen.insert(to_hex(of(digest_kind::keyed, request, 1, 0, 1, value)));
  seen.insert(to_hex(of(digest_kind::keyed, request, 1, 0, 0, bytes_of("valuE"))));
  seen.insert(to_hex(of(digest_kind::crc32c, request, 1, 0, 0, value)));
  CAF_CHECK_EQUAL(seen.size(), 7U);
  CAF_CHECK(all_zero(of(digest_kind::keyed, request, 1, 0, 0, {})));
  CAF_CHECK(all_zero(of(digest_kind::crc32c, request, 1, 0, 0, {})));
  CAF_CHECK(of(digest_kind::crc32c, request, 1, 0, 0, value) == crc32c_digest(crc32c(value)));
  digest.begin(digest_kind::crc32c, request, 1, 0, 0);
  digest.update(value);
  CAF_CHECK(!digest.matches(digest16{}));
}

CAF_TEST(bytes become digits and digits of the right number become bytes) {
  const buffer bytes = bytes_of(std::string_view("\x00\x0f\xf0\xff", 4));
  CAF_CHECK_EQUAL(hex_text(bytes), "000ff0ff");
  CAF_CHECK_EQUAL(hex_text({}), "");
  std::array<std::byte, 4> read{};
  for (const auto* text : {"000ff0ff", "000FF0Ff"}) {
    read.fill(std::byte{0x55});
    CAF_CHECK(read_hex(text, read));
    CAF_CHECK(std::ranges::equal(read, bytes));
  }
  for (const auto* text :
       {"", "000ff0f", "000ff0fff", "000ff0fg", "000ff0f ", "0x0ff0ff", "000ff0f/", "000ff0f:"})
    CAF_CHECK(!read_hex(text, read));
  CAF_CHECK(read_hex("", std::span<std::byte>{}));
}

CAF_TEST(texts are trimmed and lowered byte by byte) {
  CAF_CHECK_EQUAL(trimmed(" \t a b\t "), "a b");
  CAF_CHECK_EQUAL(trimmed(" \t "), "");
  CAF_CHECK_EQUAL(trimmed(""), "");
  CAF_CHECK_EQUAL(trimmed("\n a \n"), "\n a \n");
  CAF_CHECK_EQUAL(trimmed("\n a \n", " \n"), "a");
  CAF_CHECK_EQUAL(lowered("A-Z[`{\xC4\x8F"), "a-z[`{\xC4\x8F");
}

CAF_TEST(every character is read as it was written and everything else is invalid) {
  const auto encoded = [](char32_t code) {
    std::string text;
    if (code < 0x80) {
      text = {static_cast<char>(code)};
    } else if (code < 0x800) {
      text = {static_cast<char>(0xC0U | code >> 6U), static_cast<char>(0x80U | (code & 0x3FU))};
    } else if (code < 0x10000) {
      text = {static_cast<char>(0xE0U | code >> 12U), static_cast<char>(0x80U | (code >> 6U & 0x3FU)),
              static_cast<char>(0x80U | (code & 0x3FU))};
    } else {
      text = {static_cast<char>(0xF0U | code >> 18U), static_cast<char>(0x80U | (code >> 12U & 0x3FU)),
              static_cast<char>(0x80U | (code >> 6U & 0x3FU)), static_cast<char>(0x80U | (code & 0x3FU))};
    }
    return text;
  };
  std::uint32_t wrong = 0;
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    const auto text = encoded(code);
    const auto found = first_character(text + "x");
    const bool half = code >= 0xD800 && code <= 0xDFFF;
    if (half ? found.valid : !found.valid || found.code != code || found.bytes != text.size())
      ++wrong;
    if (text.size() > 1 && first_character(std::string_view(text).substr(0, text.size() - 1)).valid)
      ++wrong;
  }
  CAF_CHECK_EQUAL(wrong, 0U);
  for (const auto* text : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
                           "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3(", "\xE2\x82("}) {
    CAF_CHECK(!first_character(text).valid);
    CAF_CHECK_EQUAL(first_character(text).bytes, 1U);
  }
}
