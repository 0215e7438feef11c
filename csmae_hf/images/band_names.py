"""Names of bands and layers as the field spells them: in a file's descriptions, in file names, in tables and archives of arrays.

One table for every reader. A name is taken apart into words; one of them must be a band. What stands beside it must be known to
leave the band what it is (a unit, a mean, a date): any other word may say that the layer is something made of bands, and is named.
What is known to be no band (SCL, angles, a ratio, a count) is told from what is not known.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from csmae_hf.images.products import parse_product

COMMON_NAMES: dict[str, str] = {
    "coastal": "B01",
    "aerosol": "B01",
    "ultrablue": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge": "B05",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "rededge071": "B05",
    "rededge075": "B06",
    "rededge078": "B07",
    "re1": "B05",
    "re2": "B06",
    "re3": "B07",
    "nir": "B08",
    "broadnir": "B08",
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
std stddev stdev sd var variance count counts n num nobs ratio rvi rfdi diff difference normdiff contrast entropy asm texture
error err uncertainty flag flags pvalue trend amp phase coherence coh min max minimum maximum skew skewness kurt kurtosis range
iqr mad smad emad bcmad cv sum anomaly zscore change glcm pca weight weights squared delta log log10 ln sq sqrt cr gradient norm
normed normalized normalised normalization standardized standardised scaled rescaled stretched uint8 int8 8bit byte slope
intercept amplitudes residual residuals correlation hist equalized
"""
_DERIVED = frozenset(_DERIVED_WORDS.split())
"""Words beside a band that say that the layer is made of bands, and is none."""

_NO_PLACE_WORDS = """
std stddev stdev variance zscore log10 norm normed normalized normalised standardized standardised scaled rescaled stretched
"""
_NO_PLACE = frozenset(_NO_PLACE_WORDS.split())
"""Words that say so right before the band in the name of a file too, where others may be of a place."""

_MASKS = frozenset(["msk", "mask", "detfoo", "qualit", "quality", "classi", "angle", "lia", "incidence"])
"""Words that say so before the band as well (`MSK_DETFOO_B02`); others may be words of a longer file name there."""

_SAYS_NOTHING_WORDS = """
s1 s2 s1a s1b s1c s1d s2a s2b s2c s2d sentinel sentinel1 sentinel2 iw grd grdh rtc slc msi l1c l2a toa boa band
mean median mosaic raw db linear lin power amplitude dn sigma0 gamma0 beta0 cog
bands average avg medoid geomedian composite p50 harmonized harmonised surface reflectance reflectances refl sr sre fre nbar nbart
backscatter sar c l2 l1 level l2f l2h ard msil2a msil1c msil1c sdr bestpixel image img layer channel data values value
nm um wavelength wavelengths central center centre resolution pixel pixels narrow broad vegetation near short wave shortwave infrared
visible vis water vapour vapor pol polarisation polarization polarised polarized vertical horizontal
terrain corrected flattened nought naught sentinelhub copernicus esa gee openeo stac
decibel decibels orthorectified ellipsoid normlim sigma beta
"""
_SAYS_NOTHING = frozenset(_SAYS_NOTHING_WORDS.split())
"""Words that leave a band what it is, and do not tell the images of a series apart."""

_TELLS_APART_WORDS = """
winter spring summer fall autumn jan feb mar apr may jun jul aug sep sept oct nov dec january february march april june july august
september october november december monday day month year date time dry wet rainy monsoon season annual yearly monthly weekly pre post
before after event first last asc desc des ascending descending orbit rel relative pass path row cycle quarter a b d e m s t v x y
tile patch crop cropped clip clipped subset cut chip sample scene stack stacked merged merge reprojected reproj warped resampled resamp
resample aligned coreg coregistered utm wgs wgs84 epsg tif tiff gtiff jp2 north south east west full final new orig original
copy version cloudfree clear filled gapfilled masked ew sm wv slv mst ref slave master spk speckle despeckled filtered filt
filter lee refined gamma boxcar median tf tc ml mli geo nr orb cal tnr bdr noise gnr srgb elp area pan asf hyp3 opera snap
s2cloudless cloudless s1tiling sen2cor sen2like maja theia train test val validation training id no nr part part1 aoi roi site
location grid cell
"""
_TELLS_APART = frozenset(_TELLS_APART_WORDS.split())
"""Words that leave a band what it is, and may tell the images of a series, or of a folder, apart."""

_GENERIC = {"rededge": ("B05", "B06", "B07", "B8A"), "nir": ("B08", "B8A")}
"""Words for several bands: beside the number of one of them they say nothing more (`B6 - vegetation red edge`)."""

_LETTERS = {"r": "B04", "g": "B03", "b": "B02", "n": "B08"}
"""Bands as single letters, where one file has red, green and blue of them."""

_COUNTED = {"nir_1": "B08", "nir_2": "B8A"}
"""Bands as Digital Earth Africa counts them."""

_BESIDE_NBAR = {"swir2": "B11", "swir3": "B12", "nir1": "B08", "nir2": "B8A"}
"""Bands as Digital Earth Australia counts them (`nbart_swir_2`)."""

_NUMBERED = re.compile(r"b0?(\d{1,2})(a?)")


class BandName(NamedTuple):
    """What a name says of a layer.

    Attributes:
        band: Its canonical name, such as "B02", "B8A" or "VV"; None if it is no single band.
        layer: What says that it is no band, such as "scl"; of a name with an unknown word, the name. None otherwise.
        unit: "db", "linear" or "amplitude", where the name says it.
        quantity: "sigma0", "gamma0" or "beta0", where the name says it.
        metres: Ground size of its pixels, where the name says it.
        raw: Whether it is a raw export of the Copernicus Browser (`B02_(Raw)`), whose integers are no digital numbers.
        rest: What else stands in the name, words joined by "_": equal for the bands of one image; it tells the dates of a series
            (`B2_3`, `20180710T125311_B2`) and the images of a folder apart.
        unknown: A word beside a band that is not known to leave the band what it is (`B2_whitened`); "" where there is none.
        counted: The number of a layer that is called `Band 2` or the like, and may be a mere count; 0 for others.
        level: "L1C", where the name says it.
    """

    band: str | None = None
    layer: str | None = None
    unit: str | None = None
    quantity: str | None = None
    metres: int | None = None
    raw: bool = False
    rest: str = ""
    unknown: str = ""
    counted: int = 0
    level: str | None = None


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


def unknown_word(word: str) -> str:
    """Say what an unknown word beside a band means, and what to do."""
    return (
        f"the word {word!r} beside a band is not known, so it may be something made of the band. If it is the band itself, take the "
        "word out (of a file's name: put it before the band), or give the bands in the order of the file (--bands in a command, "
        "bands= in Python)"
    )


def parse_descriptions(descriptions: Iterable[str | None], known: Iterable[str] = ()) -> list[BandName]:
    """Read what the descriptions of a file's layers say, each as of [`parse_band`], and some of them by the others.

    `R`, `G`, `B` and `N` are bands where the file has red, green and blue of them. `NIR` beside `BROADNIR` is the narrow one, as FORCE
    names them, and `swir_2` beside `swir_3` is B11, as Digital Earth Australia counts. `Band 1`, `Band 2`, ... counted from the first
    layer on are no names.
    """
    texts, known = [(text or "").strip() for text in descriptions], tuple(known)
    said = [parse_band(text, known) for text in texts]
    small = [text.lower() for text in texts]
    if {"r", "g", "b"} <= set(small):
        said = [BandName(_LETTERS[text]) if text in _LETTERS else name for text, name in zip(small, said, strict=True)]
    if "broadnir" in small:
        said = [BandName("B8A") if text == "nir" else name for text, name in zip(small, said, strict=True)]
    if {"nir_1", "nir_2", "red"} <= set(small):  # as Digital Earth Africa names them: no series, for red has no number
        said = [BandName(_COUNTED[text]) if text in _COUNTED else name for text, name in zip(small, said, strict=True)]
    if {"swir_2", "swir_3"} <= set(small):
        said = [
            BandName(_BESIDE_NBAR[text.replace("_", "")]) if text in ("swir_2", "swir_3") else name
            for text, name in zip(small, said, strict=True)
        ]
    counted = [name.counted for name in said]
    if any(counted) and all(number in (0, place) for place, number in enumerate(counted, start=1)):
        said = [BandName() if name.counted else name for name in said]
    return said


@functools.lru_cache(maxsize=4096)  # descriptions, and the names in tables, are the same for all files
def _parse(text: str, known: tuple[str, ...], file: bool) -> BandName:
    text = re.sub(r"(?i)^band[\s_-]*\d{1,2}\s*[:=]\s*(?=\S)", "", text)  # `Band 1: B02`, of ENVI
    if (
        file
    ):  # the mode of the acquisition before the band: `..._Sentinel-1_AWS-IW-VVVH_VV_(Raw)`, of the Copernicus Browser
        text = re.sub(r"(?i)(?<![a-z0-9])(?:vv\+?vh|hh\+?hv)(?=[_-]+(?:vv|vh|hh|hv)(?![a-z]))", "dual", text)
    words = _words(text)
    own = {band.lower(): band for band in known}
    if text.lower() in own:
        return BandName(own[text.lower()])
    if file and words and words[-1] in own:
        return BandName(own[words[-1]], rest="_".join(words[:-1]))
    end = len(words)
    while end and (words[end - 1] in _SAYS_NOTHING or re.fullmatch(r"\d{2,3}m|\d{1,3}", words[end - 1])):
        end -= 1
    beside_nbar = not {"nbar", "nbart"}.isdisjoint(words)
    found: dict[int, str] = {}
    for place, word in enumerate(words):
        band = (_BESIDE_NBAR.get(word) if beside_nbar else None) or _band_of_word(word)
        if band and not (file and word in COMMON_NAMES and place != end - 1):
            found[place] = band
    places = set(found)
    numbers = {band for place, band in found.items() if words[place] not in _GENERIC}
    if len(numbers) == 1:
        (band,) = numbers
        found = {at: its for at, its in found.items() if its == band or band not in _GENERIC.get(words[at], ())}
    bands = list(dict.fromkeys(found.values()))
    mixed = next((word for word in words if re.fullmatch(r"(?:[vh]{2}){2,}", word)), None)  # vvvh is of both
    layers = [word for word in words if word in LAYERS or word.startswith(_LAYER_STEMS)]
    if len(bands) != 1 or mixed:
        several = "-".join(map(str, bands)) if len(bands) > 1 else mixed
        return BandName(layer=next(iter(layers), several))
    place = max(found)
    after = words[place + 1 :]
    beside = words[max(place - 1, 0) : place]
    chain = _of_pyrosar(after)
    layer = next((word for word in chain if word in LAYERS or _is_derived(word)), None)
    layer = layer or next((word for word in words[:place] if word in _MASKS), None)
    layer = layer or next((word for word in beside if word in (_NO_PLACE if file else _DERIVED)), None)
    if place and words[place - 1] in ("sr", "st") and _NUMBERED.fullmatch(words[place]):
        layer = f"{words[place - 1]}_{words[place]}"  # Landsat's, as Collection 2 and Earth Engine name its bands
    if layer is not None:
        return BandName(layer=layer)
    # before the band of a file, or after a product's name, anything may stand; a stack may be named after a site (x_b2_y_s2)
    before = [] if file or parse_product(text).date else words[:place]
    unknown = next((word for word in (*before, *chain) if not _is_known(word)), "")
    if unknown:
        return BandName() if file and words[-1] in ("s1", "s2") else BandName(layer=text, unknown=unknown)
    metres = next((word for word in after if re.fullmatch(r"(?:10|20|30|60|100)m", word)), None)
    others = [word for at, word in enumerate(words) if at not in places]
    rest = [word for word in others if word != metres and (file or word not in _SAYS_NOTHING)]
    counted = re.search(r"(?i)(?<![a-z0-9])band[\s_-]*(\d{1,2})(?![a-z0-9])", text)
    is_said = any(word.startswith(("s2", "sentinel2", "msi", "l2a", "l1c")) for word in words)
    return BandName(
        bands[0],
        None,
        _unit(words),
        next((word for word in words if word in ("sigma0", "gamma0", "beta0")), None),
        int(metres[:-1]) if metres else None,
        "raw" in after,
        "_".join(rest),
        "",
        int(counted[1]) if counted and not is_said and len(found) == 1 else 0,
        "L1C" if not {"toa", "l1c", "msil1c"}.isdisjoint(words) else None,
    )


def _of_pyrosar(words: Sequence[str]) -> list[str]:
    """Words without the `norm` of pyroSAR's processing steps (`VV_grd_mli_geo_norm_db`): by the angle, which leaves it backscatter."""
    steps = {"geo", "mli", "grd", "pan", "area"}
    return [word for before, word in zip(("", *words), words, strict=False) if word != "norm" or before not in steps]


def _is_derived(word: str) -> bool:
    start = word.rstrip("0123456789")
    return word in _DERIVED or (len(start) > 2 and start in _DERIVED) or word.startswith(_LAYER_STEMS)


def _is_known(word: str) -> bool:
    """Whether a word beside a band leaves it what it is: a known one, a number, a date, the name of a tile or a product."""
    if word in _SAYS_NOTHING or word in _TELLS_APART or _band_of_word(word) or word[0].isdigit():
        return True
    start = word.rstrip("0123456789")
    if start == word:
        return bool(re.search(r"\d", word))  # t33uup, n0509r022
    return start in _SAYS_NOTHING or start in _TELLS_APART or start in ("n", "r", "o")  # N0509, R022, orbit o12


def _words(text: str) -> list[str]:
    """The words of a name in lower case; `nir_narrow`, `red edge 1`, `Band 8A` and `sigma nought` as one."""
    text = re.sub(r"(?i)red[\s_-]?edge[\s_-]?(\d{3}|\d?)(?!\d)", r"rededge\1", text)
    text = re.sub(r"(?i)nir[\s_-]?narrow|narrow[\s_-]?(?:nir|near[\s_-]?infra[\s_-]?red)", "nirnarrow", text)
    text = re.sub(r"(?i)near[\s_-]?infra[\s_-]?red", "nir", text)
    text = re.sub(r"(?i)short[\s_-]?wave[\s_-]?infra[\s_-]?red", "swir", text)
    text = re.sub(r"(?i)ultra[\s_-]blue", "ultrablue", text)
    counted = "nir|swir" if re.search(r"(?i)nbart?(?![a-z])", text) else "swir"  # nir_1 may be of a series
    text = re.sub(rf"(?i)({counted})[\s_-](\d+)", r"\1\2", text)
    text = re.sub(r"(?i)(sigma|gamma|beta)[\s_-]?(?:0|nought|naught)", r"\g<1>0", text)
    text = re.sub(r"(?i)sentinel[\s_-]?([12])(?![0-9])", r"sentinel\1", text)
    text = re.sub(r"(?i)(?<![a-z0-9])band[\s_-]*(\d{1,2}a?)(?![a-z0-9])", r"b\1", text)
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
        ("decibel", "db"),
        ("decibels", "db"),
        ("linear", "linear"),
        ("lin", "linear"),
        ("power", "linear"),
        ("amplitude", "amplitude"),
    ):
        if word in words:
            return unit
    return None
