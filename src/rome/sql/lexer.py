"""The words of an SQL text: where identifiers, strings, parameters and operators begin and end.

SQLite parses; this finds landmarks for what has to be known before SQLite is asked, or what has to be
put into a text (a keyset bound, numbered parameters). It follows SQLite's own tokenizer, so that
nothing inside a string, a quoted name or a comment is ever taken for SQL. What SQLite would refuse
(an open string, a stray character) comes out as a token of kind `illegal`: the refusal is SQLite's.

Keywords are not told from names here: most of SQLite's are allowed as names, and only the place in
the statement says which one is meant. `Token.word` holds a bare word in capitals, to compare with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

Kind = Literal["word", "quoted", "string", "blob", "number", "parameter", "operator", "illegal"]


class Token(NamedTuple):
    """One token: `sql[start:end] == text`."""

    kind: Kind
    text: str
    start: int
    end: int
    word: str
    """The text in capitals if this is a bare word (a keyword or an unquoted name), else empty."""


_TOKEN = re.compile(
    r"""
    (?P<space>     [ \t\n\f\r\ufeff]+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<blob>      [xX]'[0-9a-fA-F]*' )
  | (?P<word>      [A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]* )
  | (?P<parameter> \?\d* | [:@$\#][\w$\x80-\U0010ffff]+(?:::[\w$\x80-\U0010ffff]*)*(?:\([^\s)]*\))? )
  | (?P<number>    0[xX][0-9a-fA-F_]+ | (?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)? )
  | (?P<string>    '(?:[^']|'')*' )
  | (?P<quoted>    "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
  | (?P<operator>  ->>|->|\|\||<=|<>|<<|==|!=|>=|>>|[-+*/%=<>&|~,;.()] )
  | (?P<illegal>   '.*|".*|`.*|\[.*|. )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


def tokens(sql: str) -> list[Token]:
    """All tokens of a text, without white space and comments."""
    found = []
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        if kind != "space":
            text = match[0]
            word = text.upper() if kind == "word" else ""
            found.append(Token(cast(Kind, kind), text, match.start(), match.end(), word))
    return found


def is_name(token: Token) -> bool:
    """Whether a token can stand where SQLite takes a name. (It takes strings there, too.)"""
    return token.kind in ("word", "quoted", "string")


def unquoted(token: Token) -> str:
    """The name that a token stands for, or the text of a string."""
    if token.kind == "word":
        return token.text
    quote = token.text[-1]
    inner = token.text[1:-1]
    return inner if quote == "]" else inner.replace(quote * 2, quote)


def matching_parenthesis(found: Sequence[Token], opening: int) -> int | None:
    """The index of the `)` that closes the `(` at index `opening`; None if there is none."""
    depth = 0
    for index in range(opening, len(found)):
        text = found[index].text
        if text == "(":
            depth += 1
        elif text == ")":
            depth -= 1
            if depth == 0:
                return index
    return None


def parameter_numbers(found: Iterable[Token]) -> dict[int, int]:
    """Which parameter (from 1) each parameter token is, by its start; numbered as SQLite does it."""
    numbers: dict[int, int] = {}
    named: dict[str, int] = {}
    last = 0
    for token in found:
        if token.kind != "parameter":
            continue
        text = token.text
        if text == "?":
            number = last + 1
        elif text[0] == "?":
            number = int(text[1:])
        else:
            number = named.setdefault(text, last + 1)
        numbers[token.start] = number
        last = max(last, number)
    return numbers


class Cursor:
    """Reads tokens one after the other; behind the last one it stands on an empty token."""

    __slots__ = ("_found", "at")

    def __init__(self, found: Sequence[Token], at: int = 0) -> None:
        self._found = found
        self.at = at

    def peek(self, ahead: int = 0) -> Token:
        index = self.at + ahead
        return self._found[index] if index < len(self._found) else _END

    def accept(self, *words: str) -> bool:
        """Step over these words if they come next, all of them."""
        if any(self.peek(ahead).word != word for ahead, word in enumerate(words)):
            return False
        self.at += len(words)
        return True

    def accept_symbol(self, text: str) -> bool:
        """Step over this operator if it comes next."""
        token = self.peek()
        if token.kind != "operator" or token.text != text:
            return False
        self.at += 1
        return True

    def name(self) -> str | None:
        """Step over a name and return it unquoted; None if there is none."""
        token = self.peek()
        if not is_name(token):
            return None
        self.at += 1
        return unquoted(token)

    def qualified_name(self) -> tuple[str | None, str | None]:
        """Step over `name` or `schema.name`; returns (schema or None, name or None)."""
        first = self.name()
        if first is not None and self.accept_symbol("."):
            return first, self.name()
        return None, first

    def skip_parentheses(self) -> bool:
        """Step over a parenthesised group if one comes next and is closed."""
        if self.peek().text != "(":
            return False
        closing = matching_parenthesis(self._found, self.at)
        if closing is None:
            return False
        self.at = closing + 1
        return True


_END = Token("illegal", "", 0, 0, "")
