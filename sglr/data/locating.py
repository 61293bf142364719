"""Files and folders of the user's: where they are looked for, and whether DVC notices changes in them."""

from pathlib import Path

from sglr.files import FileError


def find(path: str, root: Path | None, key: str, *, folder: bool = False) -> Path:
    """A file or folder of the user's, in the project or in the folder that SGLR_DATA_ROOT names (``root``), unless
    ``path`` is absolute; FileError, with the key that names it, where it is in neither."""
    places = [Path(path)]
    if root is not None and not places[0].is_absolute():
        places.append(root / path)
    for place in places:
        if place.is_dir() if folder else place.is_file():
            require_watched(place, key)
            return place
    raise FileError(
        f"{key}: there is no {'folder' if folder else 'file'} {' or '.join(str(place.absolute()) for place in places)}."
        " SGLR_DATA_ROOT names another folder to look in, as a queued experiment needs it: its copy of the project"
        " has only what git tracks."
    )


def require_watched(path: Path, key: str) -> None:
    """FileError for a file in data/ behind a link to a folder: DVC does not follow it, nor notice changes there."""
    for folder in (*([path] if path.is_dir() else []), *path.parents):
        if folder.is_relative_to("data") and folder != Path("data") and folder.is_symlink():
            raise FileError(
                f"{key}: {folder} is a link to a folder, behind which no change would be noticed:"
                f"{'' if path.is_dir() else f' put a link to {path.name} itself into data/, or'} give its full path."
            )
