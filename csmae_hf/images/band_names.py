"""Names of bands and layers as the field spells them: in a file's descriptions, in file names, in tables and archives of arrays.

One table for every reader. A name is taken apart into words; one of them must be a band, and no other may say that the layer is
something made of bands (a ratio, a count, a mask). What is known to be no band (SCL, angles, masks) is told from what is not known.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

COMMON_NAMES: dict[str, str] = {
    "coastal": "B01",
    "aerosol": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge": "B05",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nirnarrow": "B8A",
    "rededge4": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir1": "B11",
    "swir16": "B11",
    "swir2": "B12",
    "swir22": "B12",
}
"""Bands by the common names of STAC's eo extension and of Earth Search's assets, in the meaning they have for Sentinel-2."""

S2_BAND_NAMES = (*(f"B{number:02d}" for number in range(1, 9)), "B8A", "B09", "B10", "B11", "B12")
POLARISATIONS = ("VV", "VH", "HH", "HV")

_LAYERS_WORDS = """
scl aot wvp tci pvi qa10 qa20 qa60 cldprb snwprb cld snw clm clp cldmsk msk mask datamask valid validity visual
overview preview thumbnail truecolor rgb angle lia incidence inc incmap theta dem elevation slope aspect shadow
layover lsmap ls quality detfoo classi lulc label labels landcover worldcover cloud clouds cloudmask sclmask fmask
qa qapixel saa sza vaa vza area browse ndvi ndwi evi ndmi ndbi
"""
LAYERS = frozenset(_LAYERS_WORDS.split())
"""Words that name a layer of a product that is no band."""

_LAYER_STEMS = (
    "sunzenith",
    "sunazimuth",
    "viewzenith",
    "viewazimuth",
    "localincidence",
    "incidenceangle",
    "cloudprob",
    "cloudmask",
    "landcover",
    "temperature",
    "precipitation",
)
_DERIVED_WORDS = """
std stddev stdev sd var variance count counts n num nobs ratio rvi rfdi diff normdiff contrast entropy asm texture
error err uncertainty flag flags pvalue trend amp phase coherence coh min max skew skewness kurt kurtosis range iqr mad
cv sum anomaly zscore change glcm pca weight weights squared delta log log10 sq sqrt cr gradient
"""
_DERIVED = frozenset(_DERIVED_WORDS.split())
"""Words beside a band that say that the layer is made of bands, and is none."""

_MASKS = frozenset(["msk", "mask", "detfoo", "qualit", "quality", "classi", "angle", "lia", "incidence"])
"""Words that say so before the band as well (`MSK_DETFOO_B02`); others may be words of a longer file name there."""

_SAYS_NOTHING_WORDS = """
s1 s2 s1a s1b s1c s1d s2a s2b s2c s2d sentinel sentinel1 sentinel2 iw grd grdh rtc slc msi l1c l2a toa boa band
mean median mosaic raw db linear lin power amplitude dn sigma0 gamma0 beta0 cog
"""
_SAYS_NOTHING = frozenset(_SAYS_NOTHING_WORDS.split())
"""Words that do not tell the images of a series apart."""

_NUMBERED = re.compile(r"b0?(\d{1,2})(a?)")


class BandName(NamedTuple):
    """What a name says of a layer.

    Attributes:
        band: Its canonical name, such as "B02", "B8A" or "VV"; None if it is no single band.
        layer: The word that says that it is a known layer but no band, such as "scl"; None otherwise.
        unit: "db", "linear" or "amplitude", where the name says it.
        quantity: "sigma0", "gamma0" or "beta0", where the name says it.
        metres: Ground size of its pixels, where the name says it.
        raw: Whether it is a raw export of the Copernicus Browser (`B02_(Raw)`), whose integers are no digital numbers.
        rest: What else stands in the name, words joined by "_": equal for the bands of one image; it tells the dates of a series
            (`B2_3`, `20180710T125311_B2`) and the images of a folder apart.
    """

    band: str | None = None
    layer: str | None = None
    unit: str | None = None
    quantity: str | None = None
    metres: int | None = None
    raw: bool = False
    rest: str = ""


def canonical_band(name: str | None, known: Iterable[str] = ()) -> str | None:
    """Give a band its one name: B2, b02, red and S2_B2 say B02, B02, B04 and B02; iw-vv and Sigma0_VV_db say VV.

    Args:
        name: However it is spelled.
        known: Names of bands of other sensors, taken as they are, in upper or lower case.

    Returns:
        The canonical name; None if it is not the name of one band.
    """
    return parse_band(name, known).band


def parse_band(name: str | None, known: Iterable[str] = (), *, file: bool = False) -> BandName:
    """Read what the name of a layer says.

    Args:
        name: A description, or a file's name without its ending; None says nothing.
        known: Names of bands of other sensors, as of [`canonical_band`].
        file: Whether it is a file's name: of long ones (`red_sea_s2`) common names count at the end alone.

    Returns:
        What it says. Without `band` and `layer` it says nothing that is known here.
    """
    return _parse((name or "").strip(), tuple(known), file)


@functools.lru_cache(maxsize=4096)  # descriptions, and the names in tables, are the same for all files
def _parse(text: str, known: tuple[str, ...], file: bool) -> BandName:
    words = _words(text)
    own = {band.lower(): band for band in known}
    if text.lower() in own:
        return BandName(own[text.lower()])
    if file and words and words[-1] in own:
        return BandName(own[words[-1]], rest="_".join(words[:-1]))
    end = len(words)
    while end and (words[end - 1] in _SAYS_NOTHING or re.fullmatch(r"\d{2,3}m|\d{1,3}", words[end - 1])):
        end -= 1
    places = [
        place
        for place, word in enumerate(words)
        if _band_of_word(word) and not (file and word in COMMON_NAMES and place != end - 1)
    ]
    bands = list(dict.fromkeys(_band_of_word(words[place]) for place in places))
    mixed = next((word for word in words if re.fullmatch(r"(?:[vh]{2}){2,}", word)), None)  # vvvh is of both
    layers = [word for word in words if word in LAYERS or word.startswith(_LAYER_STEMS)]
    if len(bands) != 1 or mixed:
        several = "-".join(map(str, bands)) if len(bands) > 1 else mixed
        return BandName(layer=next(iter(layers), several))
    place = places[-1]
    after = words[place + 1 :]
    beside = words[max(place - 1, 0) : place]
    layer = next((word for word in after if word in LAYERS or word in _DERIVED or word.startswith(_LAYER_STEMS)), None)
    layer = layer or next((word for word in words[:place] if word in _MASKS), None)
    layer = layer or next((word for word in beside if word in _DERIVED and not file), None)
    if place and words[place - 1] in ("sr", "st") and _NUMBERED.fullmatch(words[place]):
        layer = f"{words[place - 1]}_{words[place]}"  # Landsat's, as Collection 2 and Earth Engine name its bands
    if layer is not None:
        return BandName(layer=layer)
    metres = next((word for word in after if re.fullmatch(r"(?:10|20|30|60|100)m", word)), None)
    rest = [word for word in (*words[:place], *after) if word != metres and (file or word not in _SAYS_NOTHING)]
    return BandName(
        bands[0],
        None,
        _unit(words),
        next((word for word in words if word in ("sigma0", "gamma0", "beta0")), None),
        int(metres[:-1]) if metres else None,
        "raw" in after,
        "_".join(rest),
    )


def _words(text: str) -> list[str]:
    """The words of a name in lower case; `nir_narrow`, `red edge 1` and `sigma nought` as one."""
    text = re.sub(r"(?i)red[\s_-]?edge[\s_-]?(\d?)(?!\d)", r"rededge\1", text)
    text = re.sub(r"(?i)nir[\s_-]?narrow|narrow[\s_-]?nir", "nirnarrow", text)
    text = re.sub(r"(?i)swir[\s_-](\d+)", r"swir\1", text)
    text = re.sub(r"(?i)(sigma|gamma|beta)[\s_-]?(?:0|nought|naught)", r"\g<1>0", text)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", text) if word]


def _band_of_word(word: str) -> str | None:
    if word in COMMON_NAMES:
        return COMMON_NAMES[word]
    if word.upper() in POLARISATIONS:
        return word.upper()
    match = _NUMBERED.fullmatch(word)
    if match is None:
        return None
    band = f"B{int(match[1])}A" if match[2] else f"B{int(match[1]):02d}"
    return band if band in S2_BAND_NAMES else None


def _unit(words: Sequence[str]) -> str | None:
    for word, unit in (
        ("db", "db"),
        ("linear", "linear"),
        ("lin", "linear"),
        ("power", "linear"),
        ("amplitude", "amplitude"),
    ):
        if word in words:
            return unit
    return None
