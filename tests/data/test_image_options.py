"""What a person says of image files on a command line."""

import argparse
from typing import Any

import pytest

from csmae_hf.commands.options import add_image_options, add_suspect
from csmae_hf.data.image_options import HELP, read_bands, read_image_options, read_sensors, read_units


def test_options_become_the_arguments_of_load_tiles() -> None:
    parser = argparse.ArgumentParser()
    add_image_options(parser)
    words = [
        *("--bands", "s1=VV,VH", "--bands", "s2=B02, B03,SCL", "--units", "s2=DN+1000", "--level", "l1c"),
        *("--sensors", "s1,s2", "--sensors", "thermal=T10,T11", "--pair", "*_{sensor}_*"),
    ]
    assert read_image_options(vars(parser.parse_args(words))) == {
        "bands": {"s1": ["VV", "VH"], "s2": ["B02", "B03", "SCL"]},
        "units": {"s2": "dn+1000"},
        "level": "L1C",
        "sensors": {"s1": None, "s2": None, "thermal": ["T10", "T11"]},
        "pair": "*_{sensor}_*",
    }
    assert read_image_options(vars(parser.parse_args([]))) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("s1=linear,s2=dn+1000", {"s1": "linear", "s2": "dn+1000"}),
        (["s1=linear;s2=reflectance"], {"s1": "linear", "s2": "reflectance"}),
        (['{"s2": "dn"}'], {"s2": "dn"}),
        ({"s2": "dn"}, {"s2": "dn"}),
        (None, None),
    ],
)
def test_units_may_be_said_together_or_apart(words: Any, said: Any) -> None:
    assert read_units(words) == said


def test_bands_of_two_sensors_may_stand_in_one_word() -> None:
    assert read_bands("s1=VV,VH,s2=B02,B03") == {"s1": ["VV", "VH"], "s2": ["B02", "B03"]}


@pytest.mark.parametrize("words", ["VV,VH", "s1=", "=VV", "s1=VV,,VH", "s1", "", ["s1=VV", "s1=VH"], "{broken"])
def test_malformed_bands_say_what_was_expected(words: Any) -> None:
    with pytest.raises(ValueError, match=r"^--bands .*such as s1=VV,VH"):
        read_bands(words)


@pytest.mark.parametrize("words", ["dn+1000", "s2=raw", "s2=dn,linear", "s2=", ["s2=dn", "s2=dn"], "{}"])
def test_malformed_units_say_what_was_expected(words: Any) -> None:
    with pytest.raises(ValueError, match=r"^--units .*such as s2=dn\+1000"):
        read_units(words)


@pytest.mark.parametrize("words", [",", "thermal=", "=T10", "s1,,s2", ["s1", "s1"]])
def test_malformed_sensors_say_what_was_expected(words: Any) -> None:
    with pytest.raises(ValueError, match=r"^--sensors .*such as s1,s2"):
        read_sensors(words)


def test_an_unknown_level_is_refused_by_its_option() -> None:
    with pytest.raises(ValueError, match="--level L3: expected one of L1C, L2A"):
        read_image_options({"level": "L3"})


def test_commands_and_scripts_say_the_same_of_an_option() -> None:
    parser = argparse.ArgumentParser()
    add_image_options(parser)
    add_suspect(parser)
    texts = {action.dest: action.help or "" for action in parser._actions if action.dest != "help"}
    assert texts.pop("suspect") == HELP["suspect"] + " (default: %(default)s)"
    assert texts == {name: text for name, text in HELP.items() if name != "suspect"}
