"""The prefix of every name in an export: what C and C++ leave to users."""

from __future__ import annotations

import re

from lucid.errors import ConfigError

__all__ = ["check_prefix"]

_MAX_LENGTH = 32

# C23 (6.4.1) and C++23 (lex.key, lex.digraph), without those that begin with an underscore.
_KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
char8_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
constinit continue decltype default delete do double dynamic_cast else enum explicit export
extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
nullptr operator or or_eq private protected public register reinterpret_cast requires restrict
return short signed sizeof static static_assert static_cast struct switch template this
thread_local throw true try typedef typeid typename typeof typeof_unqual union unsigned using
virtual void volatile wchar_t while xor xor_eq
"""

# Headers of the C library: PREFIX.h would stand in their way. And main.c is the example.
_FILES = """
arduino assert complex ctype errno fenv float inttypes iso646 limits locale main math setjmp
signal stdalign stdarg stdatomic stdbit stdbool stdckdint stddef stdint stdio stdlib
stdnoreturn string tgmath threads time uchar unistd wchar wctype
"""

# CMake has targets of these names (policy CMP0037).
_TARGETS = "all clean help install"


def check_prefix(prefix: str) -> None:
    """Raise ConfigError unless names and files may begin with ``prefix`` in C and in C++."""
    if not re.fullmatch(f"[A-Za-z][A-Za-z0-9_]{{0,{_MAX_LENGTH - 1}}}", prefix):
        problem = (
            f"must be 1 to {_MAX_LENGTH} letters, digits and underscores that begin with a letter"
        )
    elif "__" in prefix or prefix.endswith("_"):
        problem = "would make names with two underscores in a row, which C++ reserves"
    elif prefix in _KEYWORDS.split():
        problem = "is a keyword of C or C++"
    elif prefix.lower() in _FILES.split():
        problem = f"would make a file {prefix}.h or {prefix}.c, which there is already"
    elif prefix in _TARGETS.split():
        problem = "is a name that CMake keeps for itself"
    else:
        return
    raise ConfigError(f"prefix {prefix!r} {problem}; choose another, such as 'model'")
