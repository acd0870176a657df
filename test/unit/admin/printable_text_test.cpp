// Text of strangers on a terminal.
#define CAF_SUITE printable_text
#include "admin/printable_text.hpp"

#include <caf/test/unit_test.hpp>

#include <random>

using namespace memkv::admin;

CAF_TEST(what a terminal would obey becomes question marks) {
  CAF_CHECK_EQUAL(printable("a\033[2Jb"), "a?[2Jb");
  CAF_CHECK_EQUAL(printable("a\x07"), "a?");
  CAF_CHECK_EQUAL(printable("a\x7f"), "a?");
  CAF_CHECK_EQUAL(printable("a\xc2\x9b"
                            "31m"),
                  "a?31m");
  CAF_CHECK_EQUAL(printable("a\xe2\x80\xae"
                            "b"),
                  "a?b");
  CAF_CHECK_EQUAL(printable("a\xe2\x81\xa6"
                            "b"),
                  "a?b");
  CAF_CHECK_EQUAL(printable("a\xef\xbb\xbf"), "a?");
  CAF_CHECK_EQUAL(printable(std::string_view("a\0b", 3)), "a?b");
}

CAF_TEST(bytes that are no UTF8 become question marks) {
  CAF_CHECK_EQUAL(printable("\xff\xfe"), "??");
  CAF_CHECK_EQUAL(printable("\xc3"), "?");
  CAF_CHECK_EQUAL(printable("\xc0\xaf"), "??");
  CAF_CHECK_EQUAL(printable("\xed\xa0\x80"), "???");
  CAF_CHECK_EQUAL(printable("\xe0\x80\x80"), "???");
  CAF_CHECK_EQUAL(printable("\xf4\x90\x80\x80"), "????");
}

CAF_TEST(lines become one and long text is cut between characters) {
  CAF_CHECK_EQUAL(printable("  one\r\n\ttwo  "), "one two");
  CAF_CHECK_EQUAL(printable("äöü", 3), "äöü");
  CAF_CHECK_EQUAL(printable("äöüx", 3), "äöü...");
  CAF_CHECK_EQUAL(printable("ab cd", 2), "ab...");
  CAF_CHECK_EQUAL(printable(std::string(1000, 'x')).size(), 303u);
}

CAF_TEST(columns are counted as a terminal draws them) {
  CAF_CHECK_EQUAL(columns_of("abc"), 3u);
  CAF_CHECK_EQUAL(columns_of("Müller"), 6u);
  CAF_CHECK_EQUAL(columns_of("日本"), 4u);
  CAF_CHECK_EQUAL(columns_of("e\xcc\x81"), 1u);
}

CAF_TEST(a JSON text for a terminal is the same document) {
  CAF_CHECK_EQUAL(json_for_terminal("{\"a\":\n \"x\"}\n"), "{\"a\":\n \"x\"}\n");
  CAF_CHECK_EQUAL(json_for_terminal("\"\xc2\x9b\xe2\x80\xae\x7fü\""), "\"\\u009b\\u202e\\u007fü\"");
}

CAF_TEST(lines for a terminal keep their breaks and nothing else that is obeyed) {
  CAF_CHECK_EQUAL(lines_for_terminal("a 1\n\tb{x=\"\033\"} 2\r\n"), "a 1\n\tb{x=\"?\"} 2?\n");
}

CAF_TEST(no text leaves a control character behind) {
  const auto seed = std::random_device{}();
  CAF_MESSAGE("seed " << seed);
  std::mt19937 chance(seed);
  for (int i = 0; i < 20'000; ++i) {
    std::string text(chance() % 20, ' ');
    for (char& each : text)
      each = static_cast<char>(chance() % 2 == 0 ? chance() : "\033\xc2\x9b\xe2\x80\xae"[chance() % 6]);
    const auto shown = printable(text);
    for (std::size_t at = 0; at < shown.size(); ++at) {
      const auto byte = static_cast<unsigned char>(shown[at]);
      const bool c1 =
          byte == 0xc2 && at + 1 < shown.size() && static_cast<unsigned char>(shown[at + 1]) < 0xa0;
      if (byte < 0x20 || byte == 0x7f || c1)
        CAF_FAIL("a control character came through");
    }
    if (printable(shown, 1000) != shown)
      CAF_FAIL("what is printable stays as it is");
  }
}
