"""The environment of hooks that a site has run: what is always in it, and what no rule lets through. Pure."""

from __future__ import annotations

#: What PATH may hold: root's own directories.
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

#: What every hook has in its environment. Without HOME, interpreters ask the user database for one, and load what
#: is there.
ALWAYS_SET = {"HOME": "/nonexistent", "PATH": ":".join(SYSTEM_PATH), "PYTHONNOUSERSITE": "1"}

#: Variables that choose what a program loads or runs: with those, an allowed program would be another one. No rule
#: lets them through. There are more of this kind than can be listed: that is why a rule says what it lets through.
_CODE_VARIABLES = frozenset(
    {
        "BASHOPTS",
        "BASH_ENV",
        "ENV",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        "HOME",
        "IFS",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "NODE_OPTIONS",
        "NODE_PATH",
        "OPENSSL_CONF",
        "OPENSSL_ENGINES",
        "OPENSSL_MODULES",
        "PS4",
        "SHELLOPTS",
        "TCLLIBPATH",
        "XDG_CONFIG_HOME",
        "ZDOTDIR",
        "_JAVA_OPTIONS",
    }
)
_CODE_PREFIXES = ("BASH_FUNC_", "GEM_", "GIT_", "LD_", "LUA_", "PERL", "PYTHON", "RUBY")


def chooses_code(name: str) -> bool:
    """Whether a variable of this name is one by which a program loads or runs something: it is never let through."""
    return name in _CODE_VARIABLES or name.startswith(_CODE_PREFIXES)
