"""What can be done on the page about an image that was refused: in words, and as buttons that read it again.

Messages are made where images are checked, for commands and Python too, so they name options (`--units s1=linear`) and arguments
(`units={'s1': 'linear'}`). Here both become what the page has.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from csmae_hf.app.html import escape
from image_checks_csmae import BAND_UNIT, UNIT_NAMES

FIELD = "the field for its bands, below “Bring an image”"

_UNIT = r"units=\{[^}]*\}(?P<why> to \w+(?: it)?)? \(--units (?P<sensor>\w+)=(?P<unit>[^\s)]+)\)"
_ORDER = r"bands=\{[^}]*\} in Python, --bands \w+=NAME,NAME,\.\.\.(?: on the command line)?"


def _choose(match: re.Match[str]) -> str:
    verb = "Choose" if match["verb"][0].isupper() else "choose"
    return f"{verb} “{UNIT_NAMES.get(match['unit'], match['unit'])}”{match['why'] or ''}"


_WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    # an image that is brought comes alone: what it is called, and its number among others, say nothing
    (r"^tile (.+?): (\w+) (?=bands? |image )", lambda match: f"{match[1]}: {match[2].upper()} "),
    (r"\bof image 0 ", ""),
    (r"\b\w+ image 0 ", "it "),
    (r"\bof (s[12])\b", lambda match: f"of {match[1].upper()}"),
    (r"\btorch\.", ""),
    (rf"which {_UNIT} would convert", "which could be converted"),
    (rf"(?P<verb>[Pp]ass|say so by) {_UNIT}", _choose),
    (rf" \(?{_UNIT}\)?", ""),
    (r"leave units out if it is", "choose another unit if it is"),
    (r"take it by suspect='accept' \(--suspect accept\)", "take it all the same"),
    (r"say level='L1C' \(--level L1C\) to take", "take"),
    (r"level='L(\w+)' was given", r"Level-\1 was expected here"),
    (
        rf"[Gg]ive their names in the order of the file: {_ORDER}",
        f"Type their names, in the order of the file, into {FIELD}",
    ),
    (rf"give the bands in the order of a file: {_ORDER}", f"type their names, in the order of the file, into {FIELD}"),
    (
        r"give the bands in the order of the file \(--bands in a command, bands= in Python\)",
        f"type the bands, in the order of the file, into {FIELD}",
    ),
    (r"Pass a dict by band name, or bring them into order", "Name the bands in the file, or bring them into order"),
    (r"Pass a dict by band name", "Name the bands in the file"),
    (r", or load it as tiles \(load_tiles\), each of which is one of them", ""),
    (r" ?\(gdal_translate [^)]*\)", ""),
    (r"[;,] or build model and processor with another size", ""),
    (r", as the processor's own output is", ""),
    (r", or standardised pixels to the model itself", ""),
    (r" \(transform \([^)]*\)\)", ""),
    (r"\bthe call says", "the unit that was chosen says"),
)


def in_words(message: str) -> str:
    """Say a message without what only commands and Python have: options, arguments, types."""
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    return message


@dataclass(frozen=True)
class Reading:
    """How files that were brought are read.

    Attributes:
        sensor: Whose image they are.
        unit: Of the pixels, as of `UNIT_NAMES`; "" as the files say.
        level: "L1C" where that is taken all the same; "" as usual.
        accept: Whether signs that are guesses count for nothing.
        cut: Whether the tile in the middle of a larger image is taken.
    """

    sensor: str
    unit: str = ""
    level: str = ""
    accept: bool = False
    cut: bool = False

    @classmethod
    def from_json(cls, text: str) -> "Reading":
        """Read what a button says; ValueError if it is none of ours."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"Unknown choice: {error}") from error

    def offers(self, message: str) -> list[tuple[str, "Reading"]]:
        """By what else the files may be taken, as an error message has it: what a button says, and the reading."""
        found = []
        for match in re.finditer(rf"(?P<verb>[Pp]ass|say so by) {_UNIT}", message):
            verb = "Take it as" if match["unit"] in BAND_UNIT.values() else "Convert it from"
            words = f"{verb} {UNIT_NAMES.get(match['unit'], match['unit'])}"
            found.append((words, replace(self, unit=match["unit"])))
        if self.unit and UNIT_NAMES.get(self.unit, self.unit) in message:
            found.append(("Take it as the file says", replace(self, unit="")))
        if "--level L1C" in message:
            found.append(("Take Level-1C all the same", replace(self, level="L1C")))
        if "--suspect accept" in message:
            found.append(("Take it all the same", replace(self, accept=True)))
        return found

    def button(self, words: str) -> str:
        """A button that reads the files so."""
        return f'<button type="button" data-action="read" data-reading="{escape(json.dumps(asdict(self)))}">{escape(words)}</button>'
